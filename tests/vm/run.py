#!/usr/bin/env python3
"""Runs scenarios on virtual machines with real kernels; see README.md.

    tests/vm/run.py [--binaries DIRECTORY] [--keep] [--volume LINE] [NAME...]
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import contention
import multipath
import scenarios
import variants
from rig.cluster import Cluster, Settings, make_images
from rig.image import ROOT


ALL = [*scenarios.ALL, *contention.ALL, *variants.ALL, *multipath.ALL]


def main():
    options = parse()
    chosen = [one for one in ALL if not options.names or one.__name__ in options.names]
    unknown = set(options.names) - {one.__name__ for one in ALL}
    if unknown:
        sys.exit(f"run.py: there is no scenario {', '.join(sorted(unknown))}; there are: "
                 + ", ".join(one.__name__ for one in ALL))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    clear_leftovers()
    place = ROOT / "target" / "vm"
    passed, failed = 0, []
    rig = Rig(place, {"binaries": Path(options.binaries), "volume": options.volume})
    try:
        for scenario in chosen:
            if attempt(rig, scenario, place):
                passed += 1
            else:
                failed.append(scenario.__name__)
            if options.keep and (failed or scenario is chosen[-1]):
                shell(rig.cluster)
                break
    finally:
        rig.end()
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {len(failed)} failed; "
          + " ".join(failed))
    return 1 if failed else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios; all if none is given")
    parser.add_argument("--binaries", default=ROOT / "target" / "release",
                        help="where standfastd and standfast are")
    parser.add_argument("--volume", default=scenarios.VOLUME,
                        help="a line of the volume object, such as its reservation")
    parser.add_argument("--keep", action="store_true",
                        help="keep the guests of the first failure, or of the last scenario, and "
                             "offer a prompt for commands in them")
    return parser.parse_args()


# Directories of runs, with the process id behind it.
PREFIX = "sfvm"
# Scenarios on one boot. A node that is put out again and again is let in later and later, up to a
# minute: from the fourth on, new machines are faster.
SHARED = 3


class Rig:
    """The cluster of the running scenario: shared until one fails or needs another."""

    def __init__(self, place, usual):
        self.place = place
        self.usual = usual
        self.settings = None
        self.cluster = None
        self.directory = None
        self.used = 0

    def whole(self, scenario):
        wanted = {**self.usual, **getattr(scenario, "settings", {})}
        if self.settings != wanted or self.used == SHARED:
            self.end()
        self.used += 1
        if self.cluster is None:
            self.used = 1
            self.settings = wanted
            settings = Settings(**wanted)
            images = make_images(self.place, settings)
            # Paths of Unix sockets are short: not below the tree.
            self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            self.cluster = Cluster(self.directory, settings, images)
            start = time.monotonic()
            self.cluster.boot()
            print(f"  booted and formed in {time.monotonic() - start:.1f} s", flush=True)
        return self.cluster

    def end(self):
        if self.cluster:
            self.cluster.close()
            self.cluster = None
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None


def clear_leftovers():
    """Images and sockets of runs that were killed; their machines died with them."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = place.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(place, ignore_errors=True)


def attempt(rig, scenario, place):
    """Runs one scenario; keeps its evidence and gives up its machines if it fails."""
    start = time.monotonic()
    print(f"{scenario.__name__} ...", flush=True)
    evidence = place / scenario.__name__
    shutil.rmtree(evidence, ignore_errors=True)
    try:
        scenario(rig.whole(scenario))
        rig.cluster.heal()
    except Exception:
        print(traceback.format_exc())
        if rig.cluster:
            rig.cluster.keep_evidence(evidence)
        print(f"{scenario.__name__} FAILED after {time.monotonic() - start:.1f} s; logs of its "
              f"machines are in {evidence}", flush=True)
        if "--keep" not in sys.argv:
            rig.end()
        return False
    print(f"{scenario.__name__} ok ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def shell(cluster):
    """A prompt: `n1 COMMAND` runs it in that guest."""
    guests = {guest.name: guest for guest in [cluster.target, *cluster.nodes]}
    print(f"Guests {', '.join(guests)} run; logs are in {cluster.directory}. GUEST COMMAND runs it "
          "there, an empty line ends.")
    for line in iter(lambda: input("> "), ""):
        name, _, command = line.partition(" ")
        try:
            print(guests[name].run(command).text, end="")
        except Exception as trouble:
            print(f"{type(trouble).__name__}: {trouble}")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    sys.exit(main())
