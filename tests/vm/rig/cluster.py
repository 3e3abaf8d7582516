"""The whole rig: the array, the nodes, their paths and cables, and the cluster that runs on them.

    this process ── switch: svc0, hb0, hb1 ──────┬── node n1 ──┬── path n1-beat ──┐
                 ── client on svc0               │             ├── path n1-data ──┤
                                                 │             └── path n1-spare ─┤
                                                 └── node n2 ──── ...             ├── target
                                                                  stranger ───────┘

The target has four volumes: the heartbeat volume (no reservation), the data volume, another one to
be mistaken for it, and a spare one, which is empty. Each node reaches each volume but the other one
over a path of its own (proxy.py), and with multipath the data volume over two.
"""

import hashlib
import json
import re
import shutil
import time
from collections import namedtuple

from . import audit, image
from .client import Client, SERVICE
from .filesystem import FILE_SYSTEMS
from .guest import Guest, Trouble, free_port, network_card, own_disk, until
from .initiator import Initiator
from .proxy import PERSISTENT_RESERVE, Path, Paths
from .switch import Switch

MIB = 1 << 20
IQN = "iqn.2026-01.test.rig:array"
SERIALS = [f"{number:025}" for number in range(1, 5)]
# Volumes, and the numbers that nodes know them by.
BEAT, DATA, OTHER, SPARE = range(4)
KINDS = [(BEAT, "beat"), (DATA, "data"), (SPARE, "spare")]
# The second path of those who have one.
AGAIN = (DATA, "again")
RING_BLOCKS = 8192
NETWORKS = ["svc0", "hb0", "hb1"]
HEARTBEATS = ["hb0", "hb1"]
TASK = "web"
SECRET = "5f" * 32

NODE = """
[[node]]
name = "n{number}"
id = {number}
"""

CONFIG = """
revision = 1

[cluster]
name = "vm"
id = "6f1f0c6e0f8a4b6f9f54b1c5a7d20e11"
detect = "{detect}"

[watchdog]
device = "{watchdog}"
timeout = "4s"

{nodes}
[[link]]
name = "hb0"
kind = "ethernet"
interface = "hb0"

[[link]]
name = "hb1"
kind = "ethernet"
interface = "hb1"

[[link]]
name = "disk"
kind = "disk"
device = "{beat}"

[[task]]
name = "web"

{data}
[[task.object]]
name = "writer"
kind = "process"
step = 2
command = ["/rig/writer", "{ring}", "{blocks}"]

[[task.object]]
name = "echo"
kind = "process"
step = 2
command = ["/rig/echo", "7000"]

[[task.object]]
name = "address"
kind = "ip"
step = 3
address = "{service}/24"
interface = "svc0"
{objects}"""


# Each node's name is its system id, and there is no udev.
LVM_CONF = """
global { system_id_source = "uname" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
devices { obtain_device_list_from_udev = 0 }
backup { backup = 0 archive = 0 }
"""


def by_id(number):
    """The name that a node knows a volume by: NAA 6 of LIO, made of the serial number."""
    return f"/dev/disk/by-id/wwn-0x6001405{SERIALS[number]}"


def multipath_name(number):
    """The name of the map of all paths to a volume: the disk's own (guest/maps)."""
    return f"36001405{SERIALS[number]}"


class Settings:
    """What a cluster is made with."""

    def __init__(self, binaries, volume="", detect="2s", watchdog="/dev/watchdog-rig",
                 filesystem="ext4", nodes=2, objects="", multipath=False):
        self.binaries = binaries
        # One more line of the volume object, such as its reservation.
        self.volume = volume
        # More objects of the task.
        self.objects = objects
        self.detect = detect
        self.watchdog = watchdog
        # What the data volume holds.
        self.filesystem = FILE_SYSTEMS[filesystem]
        self.nodes = nodes
        # Has each node two paths to the data volume, in a map?
        self.multipath = multipath

    def disk(self):
        """The data volume's device."""
        return f"/dev/mapper/{multipath_name(DATA)}" if self.multipath else by_id(DATA)

    def toml(self):
        nodes = "".join(NODE.format(number=number) for number in range(1, self.nodes + 1))
        return CONFIG.format(detect=self.detect, watchdog=self.watchdog, beat=by_id(BEAT),
                             data=self.filesystem.object(self.disk(), self.volume),
                             ring=self.filesystem.ring(self.disk()), blocks=RING_BLOCKS,
                             service=SERVICE, nodes=nodes, objects=self.objects)

    def sizes(self):
        """Of the volumes, by their number."""
        return [8 * MIB, self.filesystem.size, self.filesystem.size, 16 * MIB]

    def ways(self, number):
        """The volumes that a node reaches, each with the name of the path and the initiator's."""
        node = f"n{number}"
        ways = [(volume, f"{node}-{kind}", initiator(node)) for volume, kind in KINDS]
        if self.multipath:
            volume, kind = AGAIN
            ways.append((volume, f"{node}-{kind}", initiator(f"{node}-{kind}")))
        return ways

    def initiators(self):
        """All that the array lets in."""
        ways = [way for number in range(1, self.nodes + 1) for way in self.ways(number)]
        return sorted({name for _, _, name in ways} | {initiator("stranger"), initiator("new")})


# A path of a node, to which volume it leads, and as whom.
Way = namedtuple("Way", "volume initiator path")


class Node(Guest):
    """A node: a guest with cables and paths."""

    def __init__(self, number, directory, images, ways):
        name = f"n{number}"
        own = directory / name
        arguments = own_disk(directory / f"{name}.img", 16 * MIB)
        for at, way in enumerate(ways):
            source = (f'{{"driver":"iscsi","node-name":"lun{at}","transport":"tcp",'
                      f'"portal":"127.0.0.1:{way.path.port}","target":"{IQN}",'
                      f'"lun":{way.volume},"initiator-name":"{way.initiator}",'
                      '"header-digest":"none"}')
            arguments += ["-blockdev", source, "-device", f"virtio-scsi-pci,id=scsi{at}",
                          "-device", json.dumps(disk_of(at))]
        for at, network in enumerate(NETWORKS):
            arguments += network_card(network, own, number, at)
        arguments += ["-device", "i6300esb"]
        super().__init__(name, directory, images, "node", {"id": number}, arguments)
        self.number = number
        self.ways = ways
        self.paths = [way.path for way in ways]
        self.beat, self.data, self.spare = (self.path(volume) for volume, _ in KINDS)
        self.mac = bytes([0x52, 0x54, 0x00, 0x4E, number, 0])

    def path(self, volume):
        """Its path to this volume, or all of them as one."""
        paths = [way.path for way in self.ways if way.volume == volume]
        return paths[0] if len(paths) == 1 else Paths(paths)

    def ports(self, volume):
        """Its paths to this volume as the array calls them."""
        return [f"{way.path.alias or way.initiator},i,0x{way.path.isid.hex()}"
                for way in self.ways if way.volume == volume]

    def ask(self, arguments, patience=30):
        """Runs `standfast` and reads its JSON; None if it has nothing to say."""
        result = self.run(f"standfast --node {self.name} {arguments} --json 2>&3", patience)
        try:
            return json.loads(result.text)
        except ValueError:
            return None

    def status(self):
        return self.ask("status")

    def history(self, limit=400):
        return (self.ask(f"history --limit {limit}") or {}).get("entries", [])

    def uptime(self):
        """Seconds since its boot, on the clock of its records."""
        return float(self.must("cut -d ' ' -f 1 /proc/uptime"))

    def roles(self):
        """Process ids of guard, core and runner."""
        return {name: one["pid"] for name, one in self.status()["page"]["processes"].items()}

    def unplug(self, path):
        """Takes away the disk that this path leads to."""
        gone = self.monitor.count("DEVICE_DELETED")
        self.monitor.do("device_del", id=disk_of(self.paths.index(path))["id"])
        until("the disk to be gone", lambda: self.monitor.count("DEVICE_DELETED") > gone)

    def plug(self, path):
        """Brings it back."""
        self.monitor.do("device_add", **disk_of(self.paths.index(path)))

    def failed_paths(self):
        """The device numbers of the paths that its map does not use any more."""
        status = self.must(f"dmsetup status {multipath_name(DATA)}")
        return re.findall(r"(\d+:\d+) F ", status)

    def reinstate(self):
        """Has its map use every path again, as multipathd does when a path answers."""
        for number in self.failed_paths():
            self.must(f"dmsetup message {multipath_name(DATA)} 0 'reinstate_path {number}'")

    def holds(self):
        """What of the task is on it: address, program, mount."""
        text = self.must(f"ip addr show dev svc0 | grep -q ' {SERVICE}/' && echo address; "
                         "pidof writer >/dev/null && echo program; "
                         "grep -q ' /srv/data ' /proc/mounts && echo mount; true")
        return set(text.split())


def disk_of(at):
    """A node's disk behind its path with this number."""
    return {"driver": "scsi-block", "id": f"disk{at}", "bus": f"scsi{at}.0", "drive": f"lun{at}",
            "share-rw": True, "rerror": "report", "werror": "report"}


def initiator(name):
    return f"{IQN.rsplit(':', 1)[0]}:{name}"


class Cluster:
    """See the module. Everything ends with `close`, or with this process."""

    def __init__(self, directory, settings, images):
        self.directory = directory
        self.settings = settings
        self.switch = Switch()
        self.client = None
        self.port = free_port()
        self.volumes = [directory / f"volume{number}.img" for number in range(len(SERIALS))]
        self._make_volumes()
        self.ring = audit.Ring(self.volumes[DATA], settings.filesystem)
        self.target = self._target(images)
        self.nodes = []
        for number in range(1, settings.nodes + 1):
            name = f"n{number}"
            ways = [Way(volume, as_whom, Path(path, self.port, bytes([0, 2, 0x3D, number, 0, at])))
                    for at, (volume, path, as_whom) in enumerate(settings.ways(number))]
            node = Node(number, directory, images, ways)
            for network in NETWORKS:
                self.switch.plug(name, network, node.directory)
            self.nodes.append(node)

    def _make_volumes(self):
        for number, size in enumerate(self.settings.sizes()):
            if number in (BEAT, SPARE):
                with self.volumes[number].open("wb") as file:
                    file.truncate(size)
            else:
                audit.make_volume(self.volumes[number], self.settings.filesystem, RING_BLOCKS,
                                  self.directory / "fill")

    def _target(self, images):
        arguments = own_disk(self.directory / "target.img", 16 * MIB)
        for path, size in zip(self.volumes, self.settings.sizes()):
            arguments += own_disk(path, size)
        arguments += ["-netdev", "user,id=net,restrict=on,"
                      f"hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:3260",
                      "-device", "virtio-net-pci,netdev=net,romfile="]
        words = {f"serial-{number}": serial for number, serial in enumerate(SERIALS)}
        words.update(iqn=IQN, initiators=",".join(self.settings.initiators()))
        return Guest("target", self.directory, images, "target", words, arguments)

    def boot(self):
        """Switches everything on and forms the cluster with the task running."""
        audit.make_small(self.directory / "target.img", 16 * MIB, journal=False)
        self.target.power_on()
        for node in self.nodes:
            audit.make_small(self.directory / f"{node.name}.img", 16 * MIB)
            node.power_on(wait=False)
        for node in self.nodes:
            node.await_boot(0)
        self.client = Client(self.switch, {node.mac: node.name for node in self.nodes})
        self.nodes[0].must(f"standfast --node n1 disk format {by_id(BEAT)} --yes --force "
                           "--register compare-and-write")
        self.settings.filesystem.prepare(self.nodes[0], self.settings.disk())
        for node in self.nodes:
            node.must("touch /var/lib/enabled && sync")
            node.must("setsid /rig/service >/dev/null 2>&1 & true")
        self.await_whole()

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def others(self, *nodes):
        """All but these."""
        return [one for one in self.nodes if one not in nodes]

    def other(self, node):
        """The other one of a pair."""
        return self.others(node)[0]

    def owner(self):
        """The node whose program a client reaches now."""
        return self.node(until("an owner of the service", self.client.owner))

    def await_owner(self, node, patience=30.0):
        """Waits until this node answers the client, and nobody else."""
        until(f"{node.name} to answer", lambda: self.client.owner() == node.name, patience)

    def await_whole(self, patience=90.0):
        """Waits until every node is a member, all links are up and the task runs."""
        seen = {}

        def whole():
            for node in self.nodes:
                try:
                    status = node.status() or {}
                except Trouble as trouble:
                    # It may be booting.
                    seen[node.name] = str(trouble)
                    return False
                seen[node.name] = trouble_of(status)
                if seen[node.name]:
                    return False
            return self.client.owner() is not None

        try:
            until("a whole cluster", whole, patience, 0.2)
        except Trouble as trouble:
            raise Trouble(f"{trouble}: {seen}") from None
        return self.owner()

    def heal(self):
        """Mends every cable and path, resumes and switches on what is not running."""
        self.switch.heal()
        if not self.target.is_on():
            self.target.power_on()
        for node in self.nodes:
            for path in node.paths:
                path.heal()
            if not node.is_on():
                node.power_on()
                continue
            node.thaw()
            node.resume()
            for network in NETWORKS:
                node.cable(network, True)
        return self.await_whole()

    def stop_task(self):
        self.nodes[0].must(f"standfast --node n1 stop {TASK}", 60)

    def start_task(self):
        self.nodes[0].must(f"standfast --node n1 start {TASK}", 60)
        return self.await_whole()

    def task(self, node):
        """What this node says of the task."""
        return node.status()["tasks"][0]

    def standing(self):
        """What must not change while nothing may happen: owner, its epoch, and every boot."""
        owner = self.owner()
        boots = {node.name: node.agent.boot_id for node in self.nodes}
        return owner.name, self.task(owner)["epoch"], boots

    def audit(self):
        """Stops the task, and proves ring and file system from the array; starts it again."""
        self.stop_task()
        wrong = self.ring.complaints()
        if said := self.settings.filesystem.check(self.volumes[DATA]):
            wrong.append(f"the file system: {said}")
        if wrong:
            raise Trouble("the audit found: " + "; ".join(wrong[:10]))
        self.start_task()

    def expose(self, backstore, lun=DATA):
        """Makes another of the array's volumes answer under this number."""
        self.target.must(f"/rig/expose {lun} {backstore}")

    def content(self, number):
        """A digest of each block of 4096 bytes of a volume."""
        content = self.volumes[number].read_bytes()
        blocks = range(0, len(content), 4096)
        return [hashlib.sha256(content[at:at + 4096]).digest() for at in blocks]

    def changed(self, number, before):
        """The blocks of a volume that are not as they were."""
        pairs = enumerate(zip(before, self.content(number), strict=True))
        return [at for at, (old, new) in pairs if old != new]

    def stranger(self, lun=DATA):
        """A session of somebody who is no node."""
        return Initiator(self.port, IQN, initiator("stranger"), lun)

    def keep_evidence(self, place):
        """Copies what helps to understand a failure."""
        place.mkdir(parents=True, exist_ok=True)
        for guest in [self.target, *self.nodes]:
            for name in ["console.log", "daemon.log", "qemu.log"]:
                if (guest.directory / name).exists():
                    shutil.copy(guest.directory / name, place / f"{guest.name}-{name}")
        for node in self.nodes:
            for path in node.paths:
                kept = [event for event in path.events[:-2000]
                        if event.operation in PERSISTENT_RESERVE] + path.events[-2000:]
                lines = [f"{event.asked:.4f} {event}" for event in kept]
                lines += [f"{operation:02x}: {count}" for operation, count in path.counts().items()]
                (place / f"{path.name}.log").write_text("\n".join(lines))
            try:
                for command in ["status", "history --limit 200"]:
                    told = f"standfast --node {node.name} {command}; dmesg | tail -n 50"
                    text = node.run(told, 10)
                    (place / f"{node.name}-{command.split()[0]}").write_text(text.text)
            except Exception as trouble:  # a machine that is off or hangs says nothing
                (place / f"{node.name}-silent").write_text(str(trouble))

    def check_owners(self, since):
        """Two owners must never have answered one question. One or two questions may fall between
        the last answer of the old one and the first of the new."""
        both = self.client.two_owners(since)
        if len(both) > 2:
            raise Trouble(f"two owners answered {len(both)} questions: {both[0]} to {both[-1]}")

    def close(self):
        if self.client:
            self.client.stop()
        for guest in [*self.nodes, self.target]:
            guest.power_cut()
        for node in self.nodes:
            for path in node.paths:
                path.close()
        self.switch.close()


def trouble_of(status):
    """Why a node's status is not that of a whole cluster; empty if it is."""
    if status.get("standing") != "member":
        return f"standing {status.get('standing')}"
    absent = [one["name"] for one in status["nodes"] if one["state"] != "member"]
    if absent:
        return f"no members: {absent}"
    down = [one["name"] for one in status["links"] if not one["up"]]
    if down:
        return f"links down: {down}"
    idle = [one["name"] for one in status["tasks"] if one["state"] != "started"]
    return f"tasks not started: {idle}" if idle else ""


def now():
    return time.monotonic()


def make_images(directory, settings):
    """The kernel and the initrds, with this cluster's configuration."""
    files = {
        "/etc/standfast/cluster.toml": (settings.toml().encode(), 0o644),
        "/etc/standfast/secret": (f"{SECRET}\n".encode(), 0o600),
        "/etc/lvm/lvm.conf": (LVM_CONF.encode(), 0o644),
    }
    return image.build(directory, settings.binaries, files)
