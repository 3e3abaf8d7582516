"""What the data volume holds: how it is made, where the ring lies in it, whether it is sound, and
which object of the task it is.

File systems are made in an image, on the whole of it or in a partition. Nothing is mounted on this
host.
"""

import re
import struct
import subprocess

MIB = 1 << 20
BLOCK = 4096
# Where the partition begins, if there is one.
PARTITION = MIB
SECTOR = 512
# Of a partition in the table of a PC.
LINUX = 0x83
# Where the data of a physical volume begins, and the length of an extent.
EXTENTS = MIB
EXTENT = 4 * MIB
# Of the two volumes of a group.
DATA_EXTENTS = 24
LOG_EXTENTS = 2

VOLUME = """
[[task.object]]
name = "data"
kind = "volume"
step = 1
device = "{device}"
mount = "/srv/data"
filesystem = "{filesystem}"
{more}
"""

DEVICE = """
[[task.object]]
name = "{name}"
kind = "device"
step = 1
device = "{device}"
{more}
"""


class FileSystem:
    """One that is mounted where the task runs, with the ring in its root."""

    def object(self, disk, more):
        """The object of the task, on the disk with this path, with one more line."""
        return VOLUME.format(device=disk, filesystem=self.name, more=more)

    def ring(self, _disk):
        """Where the writer finds the ring."""
        return "/srv/data/ring"

    def prepare(self, node, disk):
        """Does on a node what cannot be done to an image, before the cluster is formed."""


class Ext4(FileSystem):
    name = "ext4"
    size = 96 * MIB
    # Where it begins in the image, in bytes.
    offset = 0

    def length(self):
        """Bytes of the file system."""
        return self.size - self.offset

    def make(self, image, directory):
        """Makes the image, with what lies in this directory in the file system's root."""
        blocks = self.length() // BLOCK
        fresh(image, self.size, self.head(blocks * BLOCK))
        run(["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-E", f"offset={self.offset}",
             "-d", str(directory), str(image), str(blocks)])

    def places(self, image, name):
        """Where the blocks of a file in the root lie, in bytes from the image's beginning."""
        told = run(["debugfs", "-R", f"blocks /{name}", self._part(image)])
        return [int(word) * BLOCK + self.offset for word in told.split()]

    def check(self, image):
        """What the file system's own check says while it is not mounted; empty if it is clean."""
        return complaint(["fsck.ext4", "-fn", self._part(image)])

    def head(self, _length):
        """What is before it in the image."""
        return b""

    def _part(self, image):
        return f"{image}?offset={self.offset}"


class Partition(Ext4):
    """An ext4 in a partition."""

    offset = PARTITION

    def object(self, disk, more):
        return super().object(f"{disk}-part1", more)

    def head(self, length):
        return table(self.offset // SECTOR, length // SECTOR)


class Logical(Ext4):
    """An ext4 that fills the first volume of a group on one disk; the other volume is a raw one of
    another object, which is started at the same time."""

    size = EXTENTS + (DATA_EXTENTS + LOG_EXTENTS) * EXTENT
    offset = EXTENTS

    def object(self, _disk, more):
        more = f'group = "vg0"\n{more}'
        log = DEVICE.format(name="log", device="/dev/vg0/log", more=more)
        return super().object("/dev/vg0/data", more) + log

    def length(self):
        return DATA_EXTENTS * EXTENT

    def prepare(self, node, disk):
        """Nothing of the volumes is wiped: one holds the file system already."""
        create = "lvm lvcreate --yes --activate n --zero n --wipesignatures n"
        node.must(f"lvm pvcreate --yes --dataalignment {EXTENTS}b {disk} && "
                  f"lvm vgcreate --physicalextentsize {EXTENT}b --setautoactivation n vg0 {disk} && "
                  f"{create} --name data --extents {DATA_EXTENTS} vg0 && "
                  f"{create} --name log --extents {LOG_EXTENTS} vg0", 60)


class Xfs(FileSystem):
    name = "xfs"
    # mkfs.xfs takes no less than 300 MB.
    size = 320 * MIB

    def make(self, image, directory):
        fresh(image, self.size)
        prototype = directory.with_suffix(".proto")
        files = "".join(f"{one.name} ---644 0 0 {one}\n" for one in directory.iterdir())
        prototype.write_text(f"none\n0 0\nd--755 0 0\n{files}$\n")
        run(["mkfs.xfs", "-q", "-f", "-b", f"size={BLOCK}", "-p", str(prototype), str(image)])
        prototype.unlink()

    def places(self, image, name):
        told = run(["xfs_db", "-r", "-f", "-c", "sb 0", "-c", "p agblocks", "-c", f"path /{name}",
                    "-c", "bmap", str(image)])
        group = int(re.search(r"agblocks = (\d+)", told).group(1))
        extents = re.findall(r"startblock \d+ \((\d+)/(\d+)\) count (\d+)", told)
        return [(int(number) * group + int(first) + at) * BLOCK
                for number, first, count in extents for at in range(int(count))]

    def check(self, image):
        return complaint(["xfs_repair", "-n", "-f", str(image)])


class Raw:
    """No file system: the writer has the device itself, and its ring fills it."""

    size = 32 * MIB

    def object(self, disk, more):
        return DEVICE.format(name="data", device=disk, more=more)

    def ring(self, disk):
        return disk

    def prepare(self, _node, _disk):
        pass

    def make(self, image, directory):
        fresh(image, self.size)
        blocks = (directory / "ring").stat().st_size // BLOCK
        assert blocks * BLOCK == self.size, f"a ring of {blocks} blocks does not fill the device"

    def places(self, _image, _name):
        return range(0, self.size, BLOCK)

    def check(self, _image):
        return ""


# By the names that a cluster's settings choose them by.
FILE_SYSTEMS = {"ext4": Ext4(), "partition": Partition(), "xfs": Xfs(), "raw": Raw(),
                "lvm": Logical()}


def fresh(image, size, first=b""):
    """An empty image, but for these bytes at its beginning."""
    with open(image, "wb") as file:
        file.write(first)
        file.truncate(size)


def table(first, count):
    """The first sector of a disk with one partition, in sectors."""
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", first, count)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def run(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def complaint(command):
    result = subprocess.run(command, capture_output=True, text=True)
    return "" if result.returncode == 0 else result.stdout + result.stderr
