"""Proves from the blocks on the volume that no write of an earlier owner came after one of a later.

Reads the ring that guest/writer.c keeps, straight from the volume's image: where its blocks lie is
asked once, when the file system is made.
"""

import struct
import subprocess
from collections import namedtuple

MAGIC = 0x7265746972576653
BLOCK = 4096
RING = "ring"

Stamp = namedtuple("Stamp", "epoch number found node")


class Ring:
    """The ring's blocks within the image of a volume."""

    def __init__(self, image, filesystem):
        self.image = image
        self.places = filesystem.places(image, RING)

    def read(self):
        """The stamp at each place: None if never written, "torn" if it is not of one piece."""
        stamps = []
        with open(self.image, "rb") as file:
            for place in self.places:
                file.seek(place)
                stamps.append(decode(file.read(BLOCK)))
        return stamps

    def newest(self):
        return max((one for one in self.read() if isinstance(one, Stamp)),
                   key=lambda one: one.number, default=None)

    def complaints(self):
        """Everything that is wrong; nobody may write meanwhile."""
        return judge(self.read())


def decode(block):
    pieces = {block[at:at + 40] for at in range(0, BLOCK, 512)}
    magics = [struct.unpack("<Q", piece[:8])[0] == MAGIC for piece in pieces]
    if not any(magics):
        return None
    if len(pieces) > 1:
        return "torn"
    _, epoch, number, found = struct.unpack("<4Q", pieces.pop()[:32])
    return Stamp(epoch, number, found, block[32:40].rstrip(b"\0").decode(errors="replace"))


def judge(stamps):
    """What these stamps, in the order of their places, prove to be wrong."""
    size = len(stamps)
    wrong = [f"place {at} is torn" for at, one in enumerate(stamps) if one == "torn"]
    whole = [(at, one) for at, one in enumerate(stamps) if isinstance(one, Stamp)]
    if not whole:
        return wrong + ["nothing was ever written"]
    newest = max(one.number for _, one in whole)
    for at, one in whole:
        if one.number % size != at:
            wrong.append(f"place {at} has number {one.number}")
    # The end of the earlier epochs, by the epoch that found it.
    ends = {one.epoch: one.found for _, one in whole}
    nodes = {}
    for _, one in whole:
        nodes.setdefault(one.epoch, set()).add(one.node)
        late = [epoch for epoch, end in ends.items() if epoch > one.epoch and one.number > end]
        if late:
            wrong.append(f"{one.node} wrote number {one.number} of epoch {one.epoch} after epoch "
                         f"{min(late)} had found {ends[min(late)]} to be the last")
    wrong += [f"epoch {epoch} was written by {sorted(names)}"
              for epoch, names in nodes.items() if len(names) > 1]
    for number in range(max(1, newest - size + 1), newest + 1):
        one = stamps[number % size]
        if one == "torn" or (one and one.number == number):
            continue
        wrong.append(f"number {number} is lost: its place has {one}")
    return wrong


def make_volume(image, filesystem, blocks, directory):
    """An image with a file system that holds the ring, all its blocks allocated."""
    directory.mkdir(exist_ok=True)
    # Not zeros: those would be left out as a hole.
    (directory / RING).write_bytes(b"\xff" * (BLOCK * blocks))
    filesystem.make(image, directory)
    (directory / RING).unlink()
    directory.rmdir()


def make_small(image, size, journal=True):
    """An empty file system for what a guest keeps over a reboot. Without a journal for one whose
    every write is synchronous: the array's answer waits for it."""
    with open(image, "wb") as file:
        file.truncate(size)
    options = [] if journal else ["-O", "^has_journal"]
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, str(image)], check=True,
                   capture_output=True)
