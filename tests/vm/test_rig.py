#!/usr/bin/env python3
"""Proves that the rig's judges can find something wrong. Needs no machine."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rig.audit import BLOCK, MAGIC, Stamp, decode, judge
from rig.client import Answer, Client
from rig.image import Archive
from rig.proxy import Event, Pdu, lie, round_trips

SIZE = 16


def ring(*stamps):
    """A ring with these stamps at their places."""
    places = [None] * SIZE
    for one in stamps:
        places[one.number % SIZE] = one
    return places


def run(epoch, node, first, last, found):
    return [Stamp(epoch, number, found, node) for number in range(first, last + 1)]


class Audit(unittest.TestCase):
    HAND_OVER = run(1, "n1", 1, 6, 0) + run(2, "n2", 7, 12, 6)

    def test_a_hand_over_is_clean(self):
        self.assertEqual(judge(ring(*self.HAND_OVER)), [])

    def test_a_full_ring_is_clean(self):
        self.assertEqual(judge(ring(*run(1, "n1", 21, 30, 0), *run(2, "n2", 31, 36, 30))), [])

    def test_a_late_write_is_found(self):
        late = ring(*self.HAND_OVER, Stamp(1, 7, 0, "n1"))
        self.assertIn("after epoch 2 had found 6", judge(late)[0])

    def test_a_late_write_beyond_the_newest_is_found(self):
        self.assertTrue(judge(ring(*self.HAND_OVER, Stamp(1, 13, 0, "n1"))))

    def test_a_lost_write_is_found(self):
        places = ring(*self.HAND_OVER)
        places[9] = None
        self.assertEqual(judge(places), ["number 9 is lost: its place has None"])

    def test_two_writers_of_one_epoch_are_found(self):
        both = ring(*run(1, "n1", 1, 6, 0), *run(1, "n2", 7, 8, 0))
        self.assertIn("epoch 1 was written by ['n1', 'n2']", judge(both))

    def test_an_empty_ring_proves_nothing(self):
        self.assertTrue(judge(ring()))

    def test_a_torn_block_is_found(self):
        def piece(number):
            words = [MAGIC, 1, number, 0]
            return b"".join(word.to_bytes(8, "little") for word in words).ljust(512, b"\0")

        self.assertEqual(decode(piece(5) * 8).number, 5)
        self.assertEqual(decode(piece(5) * 7 + piece(4)), "torn")
        self.assertIsNone(decode(b"\xff" * BLOCK))


class TwoOwners(unittest.TestCase):
    def heard(self, *answers):
        client = Client.__new__(Client)
        client.answers = [Answer(asked, asked + 0.001, node, "program", True)
                          for asked, node in answers]
        return client

    def test_one_after_the_other_is_one(self):
        self.assertEqual(self.heard((1.0, "n1"), (1.5, "n2")).two_owners(0.0), [])

    def test_two_answers_to_one_question_are_two(self):
        self.assertEqual(self.heard((1.0, "n1"), (1.0, "n2")).two_owners(0.0),
                         [(1.0, ["n1", "n2"])])

    def test_the_gap_is_the_longest(self):
        gap, before, after = self.heard((1.0, "n1"), (1.1, "n1"), (3.0, "n2")).gap(0.0)
        self.assertAlmostEqual(gap, 1.9)
        self.assertEqual((before, after), ("n1", "n2"))


class Proxy(unittest.TestCase):
    def asked(self, *times):
        events = []
        for asked, answered in times:
            event = Event(bytes(16))
            event.asked, event.heard = asked, answered
            events.append(event)
        return events

    def test_commands_side_by_side_are_one_round_trip(self):
        self.assertEqual(round_trips(self.asked((1, 3), (2, 4))), 1)

    def test_commands_in_a_row_are_several(self):
        self.assertEqual(round_trips(self.asked((1, 2), (2, 3), (3.5, 4))), 3)

    def test_a_lie_is_a_whole_response(self):
        pdu = Pdu(bytes(48), b"", b"")
        lie(pdu, 2, (4, 0x44, 0))
        data = pdu.bytes()
        self.assertEqual((data[3], int.from_bytes(data[5:8], "big"), len(data)), (2, 20, 68))


class Image(unittest.TestCase):
    def test_an_archive_can_be_unpacked(self):
        archive = Archive()
        archive.add("/a/b", b"text")
        data = archive.bytes()
        self.assertEqual(data[:6], b"070701")
        self.assertIn(b"a/b\0", data)
        self.assertEqual(len(data) % 4, 0)


if __name__ == "__main__":
    unittest.main()
