"""What compare-and-write has left on the heartbeat volume, read straight from its image, and what
that proves of the changes that the array has done.

The record of the register and the counter of `standfast disk contend` both count their changes, so
that two winners of one comparison leave a count that is too low.
"""

import struct
from collections import namedtuple

from .proxy import COMPARE_AND_WRITE

SLOT, SECTOR, REGION = 4096, 512, 3 * 4096
# Of the heartbeat volume's area, as `standfast disk format` makes it.
NODES_MAX = 64
RECORD = 2 * SLOT + NODES_MAX * REGION
COUNT_AT = 48
COUNTER = RECORD + 2 * SLOT

# How a node's record begins the evidence that a change of the view was its own, and how it says
# that it does not know.
WON = "register written in"
UNCLEAR = ["lost to an unclear try", "could not be written to the register"]

# The counter of a contest: all changes, those that each contender has won, by its id, and those of
# contenders that have made room for others.
Counter = namedtuple("Counter", "total wins departed", defaults=[0])


def read_counter(image):
    """Nothing counted if the block is no counter; see src/storage/area/contest.rs."""
    block = sector(image, COUNTER)
    if block[:4] != b"STCT":
        return Counter(0, {})
    if struct.unpack("<I", block[4:8])[0] != crc32c(block[8:]):
        return Counter("damaged", {})
    words = struct.unpack("<34Q", block[8:280])
    wins = {one: count for one, count in zip(words[1:33:2], words[2:33:2]) if one}
    return Counter(words[0], wins, words[33])


def read_count(image):
    """How often the register's record was changed; see src/storage/area/record.rs."""
    return struct.unpack("<Q", sector(image, RECORD)[COUNT_AT:COUNT_AT + 8])[0]


def is_of(place):
    """Chooses the comparisons of the block at this byte."""
    return lambda event: event.operation == COMPARE_AND_WRITE and event.block == place // SECTOR


def done(paths, place, since):
    """Comparisons of this block that the array has done, by whichever path."""
    return [event for path in paths for event in path.since(since)
            if is_of(place)(event) and event.status == 0]


def judge_contest(before, after, reports, done_count):
    """What is wrong with a contest: its block before and after, what each contender said, and how
    many changes the array says to have done."""
    wrong = [f"a contender says {one['verdict']}" for one in reports if one["verdict"] != "proved"]
    if "damaged" in (before.total, after.total):
        return wrong + ["the counter is damaged"]
    if sum(after.wins.values()) + after.departed != after.total:
        wrong.append(f"the counter says {after.total}, its parts {after.wins}")
    won = sorted(one["won"] for one in reports)
    counted = sorted(count for one, count in after.wins.items() if one not in before.wins)
    if won != counted:
        wrong.append(f"they have won {won}, and the block counts {counted}")
    grown = after.total - before.total
    if grown != done_count:
        wrong.append(f"the array has done {done_count} changes, and the block counts {grown}")
    return wrong


def judge_histories(histories, first, last):
    """What is wrong with the nodes' records (by name) of the epochs after `first` up to `last`:
    each was won by one node, which says so, unless a node says that it does not know what became
    of a change of its own."""
    winners, unclear = {}, 0
    for name, entries in histories.items():
        for entry in entries:
            if not first < entry["epoch"] <= last:
                continue
            if any(one.startswith(WON) for one in entry["evidence"]):
                winners.setdefault(entry["epoch"], []).append(name)
            unclear += any(one in entry["outcome"] for one in UNCLEAR)
    wrong = [f"epoch {epoch} was won by {names}"
             for epoch, names in winners.items() if len(names) > 1]
    nobody = [epoch for epoch in range(first + 1, last + 1) if epoch not in winners]
    if len(nobody) > unclear:
        wrong.append(f"nobody says to have won the epochs {nobody}, and only {unclear} changes "
                     "are said to be unclear")
    return wrong


def sector(image, place):
    with open(image, "rb") as file:
        file.seek(place)
        return file.read(SECTOR)


def crc32c(data):
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF
