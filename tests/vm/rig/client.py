"""The client of the service network: asks for the service and notes who answers.

It speaks raw frames on the switch, each round in two ways: an ARP question, which the kernel of
every holder of the address answers, and a datagram to each node's card, which the program of every
holder answers. It keeps the neighbour table that a real client would follow, learnt from answers
and announcements. So two owners are seen even if a real client could reach only one of them.
"""

import socket
import struct
import threading
import time
from collections import namedtuple

PERIOD = 0.010
BROADCAST = b"\xff" * 6
OWN_MAC = bytes.fromhex("52544e00ff00")
OWN_ADDRESS = socket.inet_aton("10.77.0.250")
# ARP questions are told apart by who asks: so many addresses take turns.
ASKERS, FIRST_ASKER = 64, socket.inet_aton("10.77.0.128")
SERVICE = "10.77.0.100"
PORT = 7000
OWN_PORT = 40000

# Somebody answered: when it was asked and answered, which node, what of it, and whether a real
# client would have reached it.
Answer = namedtuple("Answer", "asked at node voice reachable")


class Client:
    """A running client. `nodes` are names by hardware address."""

    def __init__(self, switch, nodes):
        self.nodes = nodes
        self.switch = switch
        self.port = switch.attach("client", "svc0", self._hear)
        self.service = socket.inet_aton(SERVICE)
        self.neighbour = None
        self.answers = []
        self.asked = {}
        self.number = 0
        self.running = True
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self):
        self.running = False

    def forget(self):
        """Forgets what it heard so far."""
        self.answers = self.answers[-200:]

    def owner(self, fresh=0.3):
        """Who answers now."""
        since = time.monotonic() - fresh
        recent = {one.node for one in self.answers[-200:]
                  if one.asked > since and one.voice == "program"}
        return recent.pop() if len(recent) == 1 else None

    def heard(self, node, since):
        """Has this node answered a question asked since then, be it its kernel only?"""
        return any(one.node == node and one.asked > since for one in self.answers[-300:])

    def gap(self, since):
        """The longest time without an answer that a real client would have got, in seconds, and the
        nodes before and after."""
        heard = [one for one in self.answers if one.reachable and one.voice == "program"]
        heard = [one for one in heard if one.at >= since - 1]
        pairs = [(later.at - one.at, one.node, later.node) for one, later in zip(heard, heard[1:])]
        return max(pairs, default=(0.0, None, None))

    def two_owners(self, since):
        """Questions that two nodes answered, as (seconds after `since`, nodes)."""
        by_question = {}
        for one in self.answers:
            if one.asked >= since:
                by_question.setdefault((one.asked, one.voice), set()).add(one.node)
        return [(asked - since, sorted(nodes)) for (asked, _), nodes in by_question.items()
                if len(nodes) > 1]

    def _run(self):
        while self.running:
            self.number += 1
            now = time.monotonic()
            self.asked[self.number] = now
            self.asked.pop(self.number - 1000, None)
            self._send(BROADCAST, 0x0806, arp(1, asker(self.number), bytes(6), self.service))
            for mac in self.nodes:
                question = struct.pack("<Q", self.number)
                self._send(mac, 0x0800, datagram(OWN_ADDRESS, self.service, question))
            time.sleep(max(0.0, now + PERIOD - time.monotonic()))

    def _send(self, to, kind, payload):
        self.switch.forward(self.port, to + OWN_MAC + struct.pack(">H", kind) + payload)

    def _hear(self, frame):
        kind, node = frame[12:14], self.nodes.get(bytes(frame[6:12]))
        if kind == b"\x08\x06" and len(frame) >= 42:
            self._hear_arp(frame[14:42], node)
        elif kind == b"\x08\x00" and frame[:6] == OWN_MAC and frame[23] == 17:
            payload = frame[14 + (frame[14] & 15) * 4 + 8:]
            if len(payload) >= 8 and node:
                self._note(struct.unpack("<Q", payload[:8])[0], node, "program")

    def _hear_arp(self, packet, node):
        operation, sender, address, target = (
            packet[6:8], bytes(packet[8:14]), bytes(packet[14:18]), bytes(packet[24:28]))
        if address == self.service and node:
            # An announcement, or an answer: both change a real client's table.
            self.neighbour = sender
            back = (self.number - target[3] + FIRST_ASKER[3]) % ASKERS
            if operation == b"\0\2" and target == asker(self.number - back):
                self._note(self.number - back, node, "kernel")
        if operation == b"\0\1" and target == OWN_ADDRESS:
            self._send(sender, 0x0806, arp(2, OWN_ADDRESS, sender, address))

    def _note(self, number, node, voice):
        asked = self.asked.get(number)
        if asked is not None:
            reachable = self.nodes.get(self.neighbour) == node
            self.answers.append(Answer(asked, time.monotonic(), node, voice, reachable))


def asker(number):
    return FIRST_ASKER[:3] + bytes([FIRST_ASKER[3] + number % ASKERS])


def arp(operation, own, mac, address):
    return (struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + OWN_MAC + own + mac + address)


def datagram(source, target, payload):
    """An IPv4 UDP datagram; its own checksum is left out, as UDP allows."""
    udp = struct.pack(">HHHH", OWN_PORT, PORT, 8 + len(payload), 0) + payload
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source, target)
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + udp
