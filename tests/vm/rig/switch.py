"""The networks: one datagram on a Unix socket is one Ethernet frame.

One thread passes frames on between all cards of a network. A port can be cut in each direction,
with the carrier staying: the fault of a bad switch. The host's own clients are ports too.
"""

import os
import selectors
import socket
import threading

FRAME_MAX = 65536


class Port:
    """One card's end at the switch, or a client of the host (`hear` gets its frames)."""

    def __init__(self, owner, network, link=None, peer=None, hear=None):
        self.owner = owner
        self.network = network
        self.link = link
        self.peer = peer
        self.hear = hear
        # Frames from the owner, and to it, are lost.
        self.cut_from = False
        self.cut_to = False
        self.frames = 0
        self.lost = 0

    def send(self, frame):
        """To the owner. A full queue loses the frame, as a switch does."""
        if self.cut_to:
            self.lost += 1
        elif self.hear:
            self.hear(frame)
        else:
            try:
                self.link.sendto(frame, self.peer)
            except OSError:
                self.lost += 1


class Switch:
    """All networks."""

    def __init__(self):
        self.ports = []
        self.places = {}
        self.closed = False
        self.selector = selectors.DefaultSelector()
        self.wake, self.sleeper = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        threading.Thread(target=self._run, daemon=True).start()

    def plug(self, owner, network, directory):
        """Makes the switch's end of a card whose socket is `directory`/`network`."""
        own, peer = f"{directory}/{network}.sw", f"{directory}/{network}"
        if os.path.exists(own):
            os.unlink(own)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        link.bind(own)
        link.setblocking(False)
        port = Port(owner, network, link, peer)
        self.ports.append(port)
        self.selector.register(link, selectors.EVENT_READ, port)
        self.sleeper.send(b"x")
        return port

    def attach(self, owner, network, hear):
        """A client of the host, without a machine: returns its port."""
        port = Port(owner, network, hear=hear)
        self.ports.append(port)
        return port

    def cut(self, owner, networks, incoming=True, outgoing=True):
        """Loses what goes to (`incoming`) and comes from (`outgoing`) this owner."""
        for port in self.of(owner, networks):
            port.cut_to, port.cut_from = incoming, outgoing

    def close(self):
        self.closed = True
        self.sleeper.send(b"x")

    def heal(self):
        for port in self.ports:
            port.cut_to = port.cut_from = False

    def of(self, owner, networks):
        return [port for port in self.ports if port.owner == owner and port.network in networks]

    def forward(self, port, frame):
        """Passes on what came in at this port."""
        port.frames += 1
        self.places[port.network, frame[6:12]] = port
        if port.cut_from:
            port.lost += 1
            return
        known = self.places.get((port.network, frame[:6]))
        for other in self.ports:
            if other.network == port.network and other is not port and known in (None, other):
                other.send(frame)

    def _run(self):
        while not self.closed:
            for key, _ in self.selector.select():
                if key.data is None:
                    self.wake.recv(100)
                    continue
                try:
                    while True:
                        self.forward(key.data, key.fileobj.recv(FRAME_MAX))
                except OSError:
                    pass
        for port in self.ports:
            if port.link:
                port.link.close()
