"""A stranger at the array: a small iSCSI initiator of the host, a nexus of its own.

Takes what it likes from the nodes (persistent reservations), and sees what the array says without
asking a node. RFC 7143 for the session, SPC-4 for the commands.
"""

import socket
import struct

from .proxy import Pdu, read_pdu
from .guest import Trouble

# The length is said although it has a default: this target takes none for zero, and then sends
# empty answers without end.
KEYS = ["MaxRecvDataSegmentLength=262144", "SessionType=Normal", "HeaderDigest=None",
        "DataDigest=None", "InitialR2T=Yes",
        "ImmediateData=Yes", "MaxBurstLength=262144", "FirstBurstLength=65536",
        "MaxOutstandingR2T=1", "ErrorRecoveryLevel=0", "DefaultTime2Wait=0",
        "DefaultTime2Retain=0", "MaxConnections=1", "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes"]
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5


class Initiator:
    """A session with one logical unit."""

    def __init__(self, port, target, name, lun):
        self.lun = lun
        self.number = 1
        self.status_number = 0
        self.tag = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.stream = self.socket.makefile("rb")
        self._log_in([f"InitiatorName={name}", f"TargetName={target}", *KEYS])
        # The first command only hears the unit attention of a new nexus.
        self.command(bytes(6))

    def close(self):
        self.socket.close()

    def command(self, block, out=b"", expect=0):
        """Runs a command; returns status and data."""
        self.tag += 1
        header = bytearray(48)
        header[0] = 0x01
        header[1] = 0x80 | (0x40 if expect else 0) | (0x20 if out else 0) | 1
        header[8:16] = struct.pack(">HHHH", self.lun, 0, 0, 0)
        header[16:32] = struct.pack(">IIII", self.tag, len(out) or expect, self.number,
                                    self.status_number + 1)
        header[32:32 + len(block)] = block
        self.number += 1
        self.socket.sendall(Pdu(header, b"", out).bytes())
        data = b""
        while True:
            pdu = read_pdu(self.stream)
            if pdu is None:
                raise Trouble("the array closed the session")
            if pdu.kind == 0x25:
                data += pdu.data
            if pdu.kind == 0x21 or pdu.kind == 0x25 and pdu.header[1] & 1:
                self.status_number = struct.unpack(">I", pdu.header[24:28])[0]
                return pdu.header[3], data

    def reserve_out(self, action, own, other=0, kind=WRITE_EXCLUSIVE_REGISTRANTS_ONLY):
        """PERSISTENT RESERVE OUT; returns the status."""
        block = struct.pack(">BBBHIB", 0x5F, action, kind, 0, 24, 0)
        parameters = struct.pack(">QQIBBH", own, other, 0, 1, 0, 0)
        return self.command(block, parameters)[0]

    def keys(self):
        """All registered keys."""
        data = self._reserve_in(0)
        size = struct.unpack(">I", data[4:8])[0]
        return [struct.unpack(">Q", data[at:at + 8])[0] for at in range(8, 8 + size, 8)]

    def reservation(self):
        """Key and type of the reservation, or None."""
        data = self._reserve_in(1)
        if struct.unpack(">I", data[4:8])[0] == 0:
            return None
        return struct.unpack(">Q", data[8:16])[0], data[21] & 15

    def registrants(self):
        """Key and initiator port of each registration."""
        data = self._reserve_in(3)
        end = 8 + struct.unpack(">I", data[4:8])[0]
        found, at = [], 8
        while at < end:
            key, size = struct.unpack(">Q12xI", data[at:at + 24])
            # The port is a TransportID: four bytes, and a name that ends with zeros.
            port = data[at + 28:at + 24 + size].split(b"\0")[0]
            found.append((key, port.decode()))
            at += 24 + size
        return found

    def _reserve_in(self, action):
        status, data = self.command(struct.pack(">BB5xHB", 0x5E, action, 8192, 0), expect=8192)
        if status != 0:
            raise Trouble(f"PERSISTENT RESERVE IN {action}: status {status:#x}")
        return data

    def _log_in(self, pairs):
        text = b"".join(pair.encode() + b"\0" for pair in pairs)
        for _ in range(8):
            header = bytearray(48)
            header[0], header[1] = 0x43, 0x87
            header[8:14] = bytes.fromhex("00023d0000ff")
            header[24:32] = struct.pack(">II", self.number, self.status_number)
            self.socket.sendall(Pdu(header, b"", text).bytes())
            pdu = read_pdu(self.stream)
            if pdu is None or pdu.header[36]:
                raise Trouble("the array refuses the stranger")
            self.status_number = struct.unpack(">I", pdu.header[24:28])[0]
            if pdu.header[1] & 0x83 == 0x83:
                return
            text = b""
        raise Trouble("the array does not come to an end of the login")
