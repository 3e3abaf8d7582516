#!/usr/bin/env python3
"""Proves that the rig's judges can find something wrong. Needs no machine."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rig.audit import BLOCK, MAGIC, Stamp, decode, judge
from rig.client import Answer, Client
from rig.contest import WON, Counter, crc32c, judge_contest, judge_histories
from rig.image import Archive
from rig.filesystem import PARTITION, SECTOR, table
from rig.initiator import Initiator
from rig.proxy import ABORTED, Event, Loss, Pdu, lie, round_trips

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


class FullStatus(unittest.TestCase):
    def test_each_registration_is_told_with_its_port(self):
        def one(key, name):
            port = bytes([0x45, 0]) + len(name).to_bytes(2, "big") + name
            return key.to_bytes(8, "big") + bytes(12) + len(port).to_bytes(4, "big") + port

        both = one(7, b"iqn.x:n1,i,0x01\0") + one(8, b"iqn.x:n2,i,0x02\0\0\0\0")
        stranger = Initiator.__new__(Initiator)
        stranger._reserve_in = lambda action: bytes(4) + len(both).to_bytes(4, "big") + both
        self.assertEqual(stranger.registrants(),
                         [(7, "iqn.x:n1,i,0x01"), (8, "iqn.x:n2,i,0x02")])


class Losses(unittest.TestCase):
    def test_one_of_so_many_that_were_done_is_lost(self):
        loss = Loss(lambda event: event.operation == 0x89, 3, ABORTED)
        taken = []
        for number in range(12):
            event = Event(bytes([0x89 if number % 2 else 0x28]) + bytes(15))
            event.status = 0
            taken.append(loss.takes(event))
        self.assertEqual([at for at, one in enumerate(taken) if one], [5, 11])
        self.assertEqual(len(loss.lost), 2)

    def test_what_was_refused_is_never_lost(self):
        loss, event = Loss(lambda event: True, 1), Event(bytes(16))
        event.status = 2
        self.assertFalse(loss.takes(event))


class Contest(unittest.TestCase):
    BEFORE = Counter(5, {1: 5})
    AFTER = Counter(35, {1: 5, 2: 10, 3: 20})

    def judge(self, after=AFTER, won=(20, 10), verdict="proved", done=30):
        reports = [{"won": count, "verdict": verdict} for count in won]
        return judge_contest(self.BEFORE, after, reports, done)

    def test_one_winner_each_is_clean(self):
        self.assertEqual(self.judge(), [])

    def test_two_winners_of_one_change_are_found(self):
        self.assertEqual(self.judge(done=31),
                         ["the array has done 31 changes, and the block counts 30"])

    def test_a_contender_that_counts_otherwise_is_found(self):
        self.assertIn("they have won [10, 21]", self.judge(won=(21, 10))[0])

    def test_a_sum_that_is_none_is_found(self):
        self.assertTrue(self.judge(after=Counter(35, {1: 5, 2: 10, 3: 19})))

    def test_a_contest_that_proves_nothing_is_told(self):
        self.assertTrue(self.judge(verdict="not-contended"))

    def test_the_checksum_is_that_of_the_standard(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)


class Histories(unittest.TestCase):
    def entry(self, epoch, outcome="", won=True):
        evidence = [f"{WON} 12.0 ms"] if won else []
        return {"epoch": epoch, "evidence": evidence, "outcome": outcome}

    def test_one_winner_of_each_epoch_is_clean(self):
        told = {"a": [self.entry(3), self.entry(4), self.entry(6)], "b": [self.entry(5)]}
        self.assertEqual(judge_histories(told, 3, 6), [])

    def test_two_winners_are_found(self):
        told = {"a": [self.entry(4)], "b": [self.entry(4)]}
        self.assertEqual(judge_histories(told, 3, 4), ["epoch 4 was won by ['a', 'b']"])

    def test_a_change_that_was_done_and_taken_for_lost_is_found(self):
        lost = self.entry(5, "move lost to another node's change", won=False)
        told = {"a": [lost], "b": [self.entry(5)]}
        self.assertIn("nobody says to have won the epochs [4]", judge_histories(told, 3, 5)[0])

    def test_a_change_that_is_said_to_be_unclear_is_clean(self):
        lost = self.entry(5, "move lost to an unclear try", won=False)
        self.assertEqual(judge_histories({"a": [lost], "b": [self.entry(5)]}, 3, 5), [])


class Image(unittest.TestCase):
    def test_a_table_names_its_partition(self):
        data = table(PARTITION // SECTOR, 100)
        self.assertEqual((len(data), data[510:]), (SECTOR, b"\x55\xaa"))
        self.assertEqual(data[454:462], (2048).to_bytes(4, "little") + (100).to_bytes(4, "little"))


    def test_an_archive_can_be_unpacked(self):
        archive = Archive()
        archive.add("/a/b", b"text")
        data = archive.bytes()
        self.assertEqual(data[:6], b"070701")
        self.assertIn(b"a/b\0", data)
        self.assertEqual(len(data) % 4, 0)


if __name__ == "__main__":
    unittest.main()
