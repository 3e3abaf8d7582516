"""One virtual machine: its process, its monitor (QMP), and the agent inside.

Faults of the machine itself are methods here: power cut, reset, pause, freeze, crash, cable.
"""

import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)

# Longest time for a boot on a busy host, and for a command that says nothing else, in seconds.
BOOT = 120
COMMAND = 30


class Trouble(Exception):
    """Something that a scenario wants did not happen."""


def die_with_parent():
    """Binds a child to the thread that starts it: called between fork and exec."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def until(what, check, patience=30.0, every=0.05):
    """Waits until `check` returns something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise Trouble(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(every)


class Result:
    """What a command in a guest ended with."""

    def __init__(self, code, text):
        self.code = code
        self.text = text


class Agent:
    """Runs commands in the guest, many at once; see guest/agent.c for the protocol."""

    def __init__(self, path):
        self.socket = connect(path)
        self.boot_id = None
        self.boots = 0
        self.waiting = {}
        self.number = 0
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def start(self, command):
        """Begins a command; the queue gets its Result, or None if the guest was reset."""
        answer = queue.Queue()
        with self.lock:
            self.number += 1
            self.waiting[self.number] = (answer, bytearray())
            line = b"R %d %s\n" % (self.number, command.encode().hex().encode())
            self.socket.sendall(line)
        return answer

    def await_boot(self, boots, patience):
        """Waits until the agent has said hello in more than so many boots."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.boots > boots, patience):
                raise Trouble(f"no boot within {patience} s")

    def _listen(self):
        have = b""
        while True:
            try:
                piece = self.socket.recv(1 << 16)
            except OSError:
                piece = b""
            if not piece:
                self._abandon()
                return
            *lines, have = (have + piece).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").split())

    def _hear(self, words):
        with self.changed:
            if words[:1] == ["H"] and len(words) == 2 and words[1] != self.boot_id:
                self.boot_id = words[1]
                self.boots += 1
                self._fail_all()
                self.changed.notify_all()
            elif words[:1] == ["O"] and len(words) == 3 and int(words[1]) in self.waiting:
                self.waiting[int(words[1])][1].extend(bytes.fromhex(words[2]))
            elif words[:1] == ["X"] and len(words) == 3:
                answer, text = self.waiting.pop(int(words[1]), (None, None))
                if answer:
                    answer.put(Result(int(words[2]), text.decode(errors="replace")))

    def _fail_all(self):
        for answer, _ in self.waiting.values():
            answer.put(None)
        self.waiting.clear()

    def _abandon(self):
        with self.changed:
            self._fail_all()


class Monitor:
    """The machine's monitor; events are kept by name, with the moment they were heard."""

    def __init__(self, path):
        self.socket = connect(path)
        self.file = self.socket.makefile("rb")
        self.answers = queue.Queue()
        self.events = []
        self.lock = threading.Lock()
        self.file.readline()
        threading.Thread(target=self._listen, daemon=True).start()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        with self.lock:
            message = {"execute": command, "arguments": arguments}
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            answer = self.answers.get(timeout=COMMAND)
        if "error" in answer:
            raise Trouble(f"{command}: {answer['error']}")
        return answer["return"]

    def count(self, event):
        return sum(1 for name, _ in self.events if name == event)

    def last(self, event):
        """When this was heard last; None if never."""
        return max((at for name, at in self.events if name == event), default=None)

    def _listen(self):
        try:
            for line in self.file:
                message = json.loads(line)
                if "event" in message:
                    self.events.append((message["event"], time.monotonic()))
                else:
                    self.answers.put(message)
        except OSError:
            pass


def connect(path):
    link = socket.socket(socket.AF_UNIX)

    def attempt():
        try:
            link.connect(path)
            return True
        except OSError:
            return False

    until(f"{path} to listen", attempt, 20, 0.02)
    return link


class Guest:
    """A machine that can be switched on and off. `arguments` are what it has besides the usual."""

    def __init__(self, name, directory, images, role, words, arguments):
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.role = role
        self.images = images
        self.words = words
        self.arguments = arguments
        self.process = None
        self.agent = None
        self.monitor = None

    def power_on(self, wait=True):
        """Switches it on, and waits until it answers."""
        for name in ["agent", "qmp"]:
            (self.directory / name).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            self._command(), preexec_fn=die_with_parent, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=(self.directory / "qemu.log").open("a"))
        self.agent = Agent(str(self.directory / "agent"))
        self.monitor = Monitor(str(self.directory / "qmp"))
        if wait:
            self.await_boot(0)

    def await_boot(self, boots):
        try:
            self.agent.await_boot(boots, BOOT)
        except Trouble as trouble:
            raise Trouble(f"{self.name}: {trouble}; see its console.log") from None

    def is_on(self):
        return self.process is not None

    def power_cut(self):
        """Pulls the plug: nothing is flushed, nobody is told."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def reset(self):
        """The reset button; returns when the next boot answers."""
        boots = self.agent.boots
        self.monitor.do("system_reset")
        self.await_boot(boots)

    def pause(self):
        """As a hypervisor does: the guest's clocks stand still."""
        self.monitor.do("stop")

    def resume(self):
        self.monitor.do("cont")

    def freeze(self):
        """As a stalled host does: the guest's clocks run on."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def cable(self, name, plugged):
        """The carrier really goes and comes."""
        self.monitor.do("set_link", name=f"nic-{name}", up=plugged)

    def start(self, command):
        """Begins a shell command and does not wait."""
        return self.agent.start(command)

    def run(self, command, patience=COMMAND):
        """Runs a shell command; returns its exit code and text."""
        try:
            result = self.agent.start(command).get(timeout=patience)
        except queue.Empty:
            raise Trouble(f"{self.name}: no answer within {patience} s: {command}") from None
        if result is None:
            raise Trouble(f"{self.name} was reset during: {command}")
        return result

    def must(self, command, patience=COMMAND):
        """Runs a shell command that must succeed; returns its text."""
        result = self.run(command, patience)
        if result.code != 0:
            raise Trouble(f"{self.name}: {command}: exit code {result.code}: {result.text}")
        return result.text

    def _command(self):
        place = self.directory
        words = " ".join(f"rig.{key}={value}" for key, value in
                         {"name": self.name, "role": self.role, **self.words}.items())
        return [
            "qemu-system-x86_64", "-M", "pc,usb=off,vmport=off", "-accel", "tcg,tb-size=128",
            "-cpu", "max", "-smp", "1", "-m", "256", "-nodefaults", "-no-user-config",
            "-display", "none", "-action", "panic=none,watchdog=reset",
            "-kernel", str(self.images["vmlinux"]), "-initrd", str(self.images[self.role]),
            # acpi=noirq keeps the timers and the watchdog's registers where they belong, and saves
            # two seconds of a boot; pci=noacpi or acpi=off would not.
            "-append", "console=ttyS0 quiet mitigations=off tsc=reliable acpi=noirq no_timer_check"
                       f" tsc_early_khz={self.images['khz']} cryptomgr.notests panic=0 {words}",
            "-chardev", f"file,id=con,path={place}/console.log,append=on",
            "-serial", "chardev:con",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={place}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=rig.agent",
            "-chardev", f"file,id=log,path={place}/daemon.log,append=on",
            "-device", "virtserialport,chardev=log,name=rig.log",
            "-chardev", f"socket,id=mon,path={place}/qmp,server=on,wait=off",
            "-mon", "chardev=mon,mode=control",
            *self.arguments,
        ]


def free_port():
    """A TCP port of this host that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def network_card(net, directory, node, number):
    """A card on the software switch."""
    mac = f"52:54:00:4e:{node:02x}:{number:02x}"
    return [
        "-netdev", f"dgram,id={net},local.type=unix,local.path={directory}/{net},"
                   f"remote.type=unix,remote.path={directory}/{net}.sw",
        "-device", f"virtio-net-pci,id=nic-{net},netdev={net},romfile=,mac={mac}",
    ]


def own_disk(path, size):
    """A file as a disk of the machine's own; made if it is not there.

    The machine's flushes do not wait for this host's disk: only the machines lose their power."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.truncate(size)
    return ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe"]
