"""What the guests boot: Debian's kernel, unpacked, and a file system in memory made of busybox,
the product's programs and the few modules that a guest needs.

The kernel is unpacked here, once: under emulation its own unpacking takes six seconds. Signatures
of modules are cut off for the same reason.
"""

import io
import lzma
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent

# Modules by role: those loaded first, and those that the role's script loads later.
COMMON = ["virtio_pci", "virtio_console", "virtio_net", "virtio_blk", "crc32c_generic", "ext4"]
MODULES = {
    "node": (COMMON + ["virtio_scsi", "sd_mod", "sg", "xfs", "dm_round_robin",
                       "i6300esb", "softdog"], []),
    "target": (COMMON, ["target_core_mod", "target_core_iblock", "iscsi_target_mod"]),
}
# What the modules need and `depends` in their .modinfo does not name.
BESIDES = {"ext4": ["crc32c_generic"], "sd_mod": ["crct10dif_generic", "t10_pi"]}

PROGRAMS = {
    "node": ["/usr/bin/sg_persist", "/usr/bin/sg_raw", "/usr/sbin/fsck.ext4", "/usr/sbin/fsck",
             "/usr/sbin/lvm", "/usr/sbin/dmsetup"],
    "target": [],
}
SIGNATURE = b"~Module signature appended~\n"
XZ = b"\xfd7zXZ\x00"


class Kernel:
    """Debian's kernel package, downloaded and unpacked, never installed."""

    def __init__(self, directory):
        self.directory = directory / "kernel"
        if not (self.directory / "vmlinux").exists():
            shutil.rmtree(self.directory, ignore_errors=True)
            self._fetch()
        self.vmlinux = self.directory / "vmlinux"
        self.modules = {}
        for path in self.directory.glob("**/*.ko*"):
            self.modules[path.name.split(".ko")[0].replace("-", "_")] = path

    def _fetch(self):
        beside = self.directory.with_suffix(".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        meta = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True,
                              capture_output=True, text=True).stdout
        package = re.search(r"Depends: (linux-image-\S+)", meta).group(1)
        subprocess.run(["apt-get", "-q", "download", package], check=True, cwd=beside)
        package = next(beside.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, beside], check=True)
        package.unlink()
        image = next(beside.glob("boot/vmlinuz-*")).read_bytes()
        unpacked = lzma.LZMADecompressor().decompress(image[image.index(XZ):])
        (beside / "vmlinux").write_bytes(unpacked)
        beside.rename(self.directory)

    def module(self, name):
        """The module's bytes, without compression and signature."""
        path = self.modules[name]
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        if data.endswith(SIGNATURE):
            trailer = len(SIGNATURE) + 12
            size = int.from_bytes(data[-len(SIGNATURE) - 4:-len(SIGNATURE)], "big")
            data = data[:-trailer - size]
        return data

    def in_order(self, names):
        """The modules and all that they depend on, each after what it needs. Names that the kernel
        has built in are left out."""
        order = []

        def add(name):
            if name in order or name not in self.modules:
                return
            found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + self.module(name))
            needs = found.group(1).decode().split(",") if found else []
            for need in BESIDES.get(name, []) + [need for need in needs if need]:
                add(need.replace("-", "_"))
            order.append(name)

        for name in names:
            add(name)
        return order


class Archive:
    """A cpio archive in the format that the kernel unpacks (newc)."""

    def __init__(self):
        self.out = io.BytesIO()
        self.number = 0
        self.made = set()

    def add(self, path, data=b"", mode=stat.S_IFREG | 0o644):
        parent = str(Path(path).parent)
        if parent not in self.made and parent != "/":
            self.directory(parent)
        self.number += 1
        name = path.lstrip("/").encode() + b"\0"
        fields = [self.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        self._put(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        self._put(data)

    def directory(self, path):
        if path not in self.made:
            self.made.add(path)
            self.add(path, mode=stat.S_IFDIR | 0o755)

    def link(self, path, target):
        self.add(path, target.encode(), stat.S_IFLNK | 0o777)

    def program(self, path, source):
        self.add(path, Path(source).read_bytes(), stat.S_IFREG | 0o755)

    def _put(self, data):
        self.out.write(data)
        self.out.write(b"\0" * (-self.out.tell() % 4))

    def bytes(self):
        self.add("TRAILER!!!")
        return self.out.getvalue()


def libraries(program):
    """Paths of the libraries that a program loads."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", told)


def compile_c(source, directory):
    """A program of one file, static; its path."""
    made = directory / source.stem
    if not made.exists() or newer(source, made):
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static",
                        "-o", made, source], check=True)
    return made


def compile_guest(directory):
    """The rig's own programs for guests."""
    return {source.stem: compile_c(source, directory)
            for source in sorted((HERE / "guest").glob("*.c"))}


def clock_khz(directory):
    """The rate of every guest's time-stamp counter."""
    program = compile_c(HERE / "rig" / "tsc.c", directory)
    return int(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def newer(one, other):
    return one.stat().st_mtime > other.stat().st_mtime


def build(directory, binaries, files):
    """Writes vmlinux and an initrd for each role; returns their paths, and the rate of the clock.

    `binaries` is where the product's programs lie, `files` what nodes get besides: path to bytes
    and mode.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kernel = Kernel(directory)
    guest = compile_guest(directory)
    paths = {"vmlinux": kernel.vmlinux, "khz": clock_khz(directory)}
    for role in MODULES:
        archive = base(kernel, guest, role)
        if role == "node":
            for name in ["standfastd", "standfast"]:
                install(archive, binaries / name, f"/usr/bin/{name}")
            for path, (data, mode) in files.items():
                archive.add(path, data, stat.S_IFREG | mode)
        paths[role] = directory / f"{role}.initrd"
        paths[role].write_bytes(archive.bytes())
    return paths


def base(kernel, guest, role):
    archive = Archive()
    for path in ["/proc", "/sys", "/dev", "/run", "/tmp", "/etc/standfast", "/usr/bin", "/usr/sbin",
                 "/usr/lib", "/usr/lib64", "/var/lib", "/srv/data"]:
        archive.directory(path)
    for name in ["bin", "sbin", "lib", "lib64"]:
        archive.link(f"/{name}", f"usr/{name}")
    archive.made.update(["/bin", "/sbin", "/lib", "/lib64"])
    busybox = shutil.which("busybox")
    install(archive, busybox, "/usr/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet not in ("busybox", "fsck"):
            archive.link(f"/usr/bin/{applet}", "busybox")
    archive.add("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    archive.add("/etc/group", b"root:x:0:\n")
    archive.program("/init", HERE / "guest" / "init")
    for name in ["guardian", "service", "node", "disks", "maps", "target", "expose"]:
        archive.program(f"/rig/{name}", HERE / "guest" / name)
    for name, path in guest.items():
        archive.program(f"/rig/{name}", path)
    for program in PROGRAMS[role]:
        install(archive, program, program)
    early, late = MODULES[role]
    early = kernel.in_order(early)
    late = [name for name in kernel.in_order(late) if name not in early]
    for name in early + late:
        archive.add(f"/modules/{name}", kernel.module(name))
    archive.add("/modules/order", "".join(f"{name}\n" for name in early).encode())
    archive.add("/modules/late", "".join(f"{name}\n" for name in late).encode())
    return archive


def install(archive, source, path):
    """A program with its libraries, each where it looks for them."""
    archive.program(path, os.path.realpath(source))
    for library in libraries(source):
        place = re.sub(r"^/(lib|lib64)/", r"/usr/\1/", library)
        if place not in archive.made:
            archive.made.add(place)
            archive.program(place, os.path.realpath(library))
