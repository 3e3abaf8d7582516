"""One path from a node to a volume: an iSCSI proxy that passes, holds, cuts, delays and lies.

Reads whole PDUs (RFC 7143), so that it can count commands, answer some itself and keep the
initiator port's identity the same over power cycles: an I_T nexus is name and ISID, and QEMU's
initiator makes up a new ISID in each process, where a real adapter keeps its own.
"""

import queue
import re
import socket
import struct
import threading
import time
from collections import Counter

COMMAND, LOGIN, DATA_OUT = 0x01, 0x03, 0x05
RESPONSE, LOGIN_RESPONSE, DATA_IN = 0x21, 0x23, 0x25
HEADER = 48
EVENTS_MAX = 200_000
# How long what a vanished initiator had asked may take to be answered.
LINGER = 3.0

WRITES = {0x0A, 0x2A, 0x8A, 0x89, 0x41, 0x93, 0x42}
COMPARE_AND_WRITE = 0x89
RESERVE_IN, RESERVE_OUT = 0x5E, 0x5F
PERSISTENT_RESERVE = {RESERVE_IN, RESERVE_OUT}
TEST_UNIT_READY = bytes(16)

# Statuses and senses (key, ASC, ASCQ) to answer with; SPC-4 tables 28 and 49.
CHECK, CONFLICT = 0x02, 0x18
NOT_READY = (CHECK, (0x02, 0x04, 0x03))
HARDWARE = (CHECK, (0x04, 0x44, 0x00))
ABORTED = (CHECK, (0x0B, 0x00, 0x00))


class Pdu:
    """A header, its extra headers and its data."""

    def __init__(self, header, extra, data):
        self.header = bytearray(header)
        self.extra = extra
        self.data = data

    @property
    def kind(self):
        return self.header[0] & 0x3F

    @property
    def tag(self):
        return bytes(self.header[16:20])

    def bytes(self):
        self.header[5:8] = len(self.data).to_bytes(3, "big")
        return bytes(self.header) + self.extra + self.data + bytes(-len(self.data) % 4)


def read_pdu(stream):
    header = stream.read(HEADER)
    if len(header) < HEADER:
        return None
    extra = stream.read(header[4] * 4)
    size = int.from_bytes(header[5:8], "big")
    data = stream.read(size + -size % 4)
    return Pdu(header, extra, data[:size])


class Event:
    """A command that went by: when it was asked and answered, and with what status."""

    def __init__(self, command):
        self.asked = time.monotonic()
        # When the target answered, and when the initiator heard of it.
        self.answered = None
        self.heard = None
        self.command = command
        self.status = None

    @property
    def operation(self):
        return self.command[0]

    @property
    def action(self):
        return self.command[1] & 0x1F

    @property
    def block(self):
        """Where it reads or writes: of commands of 16 bytes only."""
        return int.from_bytes(self.command[2:10], "big")

    def __str__(self):
        took = "unanswered" if self.answered is None else (
            f"{(self.answered - self.asked) * 1000:.1f} ms, status {self.status:#04x}")
        return f"{self.operation:02x}/{self.action:02x} {took}"


class Loss:
    """Answers that never come, of commands that were done: one of each `every` that `which` (a
    function of the event) chooses. With `answer` the initiator is told that instead; without, the
    session breaks, and the initiator comes back and sends the command again."""

    def __init__(self, which, every, answer=None):
        self.which = which
        self.every = every
        self.answer = answer
        self.done = 0
        self.lost = []

    def takes(self, event):
        if event.status != 0 or not self.which(event):
            return False
        self.done += 1
        if self.done % self.every:
            return False
        self.lost.append(event)
        return True


class Path:
    """See the module. All switches may be turned at any time, by any thread."""

    def __init__(self, name, target_port, isid):
        self.name = name
        self.target = ("127.0.0.1", target_port)
        self.isid = isid
        # Another name of the initiator, from the next login on.
        self.alias = None
        self.events = []
        self.connections = []
        self.connected = True
        self.requests = threading.Event()
        self.replies = threading.Event()
        # Seconds that each answer takes longer, side by side for commands under way at once.
        self.delay = 0.0
        # None, or status, sense and which commands (a function of the command block).
        self.answer = None
        self.losses = []
        self.requests.set()
        self.replies.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_requests(self):
        """Commands stay in the path and are delivered by `heal`, however late."""
        self.requests.clear()

    def hold_replies(self):
        """Commands take effect, and nobody hears of it."""
        self.replies.clear()

    def cut(self):
        """No connection, until healed. What was in the path is lost; the initiator tries again for
        ever and tells the guest nothing."""
        self.connected = False
        for connection in self.connections:
            connection.close()

    def fail(self, answer=NOT_READY, which=lambda command: True):
        """Answers commands in the target's name."""
        self.answer = (*answer, which)

    def lose(self, *losses):
        """Loses answers until healed."""
        self.losses = list(losses)

    def heal(self):
        self.connected = True
        self.answer = None
        self.losses = []
        self.delay = 0.0
        self.requests.set()
        self.replies.set()

    def close(self):
        """For good."""
        self.connected = False
        self.listener.close()
        self.cut()

    def since(self, moment):
        """Commands asked since this moment of the monotonic clock."""
        return [event for event in self.events if event.asked >= moment]

    def counts(self, moment=0.0):
        """How often each operation was asked since then."""
        return Counter(event.operation for event in self.since(moment))

    def writes_done(self, moment):
        """Writes that took effect since then, whenever they were asked."""
        return [event for event in self.events if event.operation in WRITES
                and event.status == 0 and event.answered >= moment]

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.connected:
                client.close()
                continue
            try:
                target = socket.create_connection(self.target, timeout=10)
            except OSError:
                client.close()
                continue
            self.connections = [one for one in self.connections if not one.closed]
            self.connections.append(Connection(self, client, target))


class Paths:
    """Several paths to one volume, switched and read as one."""

    def __init__(self, each):
        self.each = each

    def hold_requests(self):
        for path in self.each:
            path.hold_requests()

    def fail(self, answer=NOT_READY):
        for path in self.each:
            path.fail(answer)

    def heal(self):
        for path in self.each:
            path.heal()

    @property
    def events(self):
        return sorted((event for path in self.each for event in path.events),
                      key=lambda event: event.asked)

    def since(self, moment):
        return [event for event in self.events if event.asked >= moment]

    def writes_done(self, moment):
        return [event for path in self.each for event in path.writes_done(moment)]


class Connection:
    """One TCP connection of the initiator and its twin to the target."""

    def __init__(self, path, client, target):
        self.path = path
        self.client = client
        self.target = target
        self.closed = False
        self.own_isid = None
        self.open = {}
        self.lies = {}
        target.settimeout(None)
        for one in (client, target):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for body in (self._up, self._down):
            threading.Thread(target=self._guard, args=(body,), daemon=True).start()

    def close(self):
        self.closed = True
        for one in (self.client, self.target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _guard(self, body):
        try:
            body()
        except OSError:
            pass
        self.close()

    def _up(self):
        stream = self.client.makefile("rb")
        while pdu := read_pdu(stream):
            if pdu.kind == LOGIN:
                self.own_isid = pdu.header[8:14]
                pdu.header[8:14] = self.path.isid
                if self.path.alias:
                    name = b"InitiatorName=" + self.path.alias.encode()
                    pdu.data = re.sub(rb"InitiatorName=[^\0]*", name, pdu.data)
            elif pdu.kind == COMMAND:
                self._ask(pdu)
            elif pdu.kind == DATA_OUT and pdu.tag in self.lies:
                continue
            self.path.requests.wait()
            if self.closed:
                return
            self.target.sendall(pdu.bytes())
        # The initiator is gone, what it has asked is not.
        end = time.monotonic() + LINGER
        while self.open and time.monotonic() < end:
            time.sleep(0.01)

    def _ask(self, pdu):
        command = bytes(pdu.header[32:48])
        event = Event(command)
        self.open[pdu.tag] = event
        if len(self.path.events) < EVENTS_MAX:
            self.path.events.append(event)
        if self.path.answer and self.path.answer[2](command):
            # The target must see each command number: it gets a harmless command instead.
            self.lies[pdu.tag] = self.path.answer[:2]
            pdu.header[1] = 0x80 | pdu.header[1] & 0x07
            pdu.header[20:24] = bytes(4)
            pdu.header[32:48] = TEST_UNIT_READY
            pdu.data = b""

    def _down(self):
        stream = self.target.makefile("rb")
        waiting = queue.Queue()
        threading.Thread(target=self._later, args=(waiting,), daemon=True).start()
        while pdu := read_pdu(stream):
            event = None
            if pdu.kind == LOGIN_RESPONSE and self.own_isid:
                pdu.header[8:14] = self.own_isid
            ends = pdu.kind == RESPONSE or pdu.kind == DATA_IN and pdu.header[1] & 1
            if pdu.kind == RESPONSE and pdu.tag in self.lies:
                lie(pdu, *self.lies.pop(pdu.tag))
            if ends:
                event = self.open.pop(pdu.tag, None)
            if event:
                event.answered = time.monotonic()
                event.status = pdu.header[3]
                loss = next((one for one in self.path.losses if one.takes(event)), None)
                if loss and not loss.answer:
                    return
                if loss:
                    lie(pdu, *loss.answer)
            self.path.replies.wait()
            if self.path.delay:
                waiting.put((time.monotonic() + self.path.delay, pdu, event))
            else:
                self._pass_on(pdu, event)

    def _later(self, waiting):
        """Passes answers on when their time has come, in their order."""
        while not self.closed:
            try:
                at, pdu, event = waiting.get(timeout=1)
            except queue.Empty:
                continue
            time.sleep(max(0.0, at - time.monotonic()))
            self._pass_on(pdu, event)

    def _pass_on(self, pdu, event):
        try:
            self.client.sendall(pdu.bytes())
        except OSError:
            # Nobody hears it; the status is noted all the same.
            return
        if event:
            event.heard = time.monotonic()


def lie(pdu, status, sense):
    """Makes a response say this instead."""
    pdu.header[3] = status
    pdu.data = b""
    if sense:
        key, code, qualifier = sense
        fixed = bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0])
        pdu.data = struct.pack(">H", len(fixed)) + fixed


def round_trips(events):
    """How many of these commands waited for the one before: those that overlap count once."""
    count, free = 0, 0.0
    for event in sorted((one for one in events if one.heard), key=lambda one: one.heard):
        if event.asked >= free:
            count += 1
            free = event.heard
    return count
