"""Each node reaches the data volume by two paths, two initiators of the array, in one map of the
kernel's: what one path lacks, the other must not hide."""

from rig.audit import BLOCK
from rig.cluster import DATA, initiator, multipath_name, now
from rig.guest import until
from rig.proxy import CHECK, CONFLICT, NOT_READY, WRITES
from scenarios import (await_writes, expect, finish, move_back, needs, power_cut, refuse_late,
                       report, report_gap, report_takeover, same_boots, setting, tells, unchanged)


def multipath_repaired(cluster):
    """Both paths of the owner are registered, and nobody else's. One fails: the task goes on by the
    other, and the node tells. It answers again as another initiator port: it is registered before
    the map uses it, although the old port's registration is still there, and that goes with the
    next start. Then its disk goes and comes back under another name: the node finds it although the
    map has only the old one, before the map has it."""
    owner, _, start = setting(cluster)
    before = cluster.standing()
    registered(cluster, owner)
    _, second = owner.data.each
    second.fail(NOT_READY)
    until("the map to give up the path", lambda: len(owner.failed_paths()) == 1)
    until("the node to tell of the path", lambda: tells(owner, start, ["does not answer"]))
    await_writes(cluster)
    left = [owner.ports(DATA)[1]]
    second.cut()
    second.alias = initiator("new")
    mended = now()
    second.heal()
    until("the node to register the path",
          lambda: tells(owner, start, ["was not registered; it is now"]))
    report(f"registered {now() - mended:.1f} s after it was mended")
    registered(cluster, owner, left)
    owner.reinstate()
    both_write(owner)
    replug(owner, second)
    unchanged(cluster, before)
    finish(cluster, start)
    both_write(owner)
    registered(cluster, owner)


def replug(owner, path):
    """The disk of a path goes, and comes back under another name."""
    known, start = disks_of_map(owner), now()
    owner.unplug(path)
    until("the node to tell of the path", lambda: tells(owner, start, ["does not answer"]))
    owner.plug(path)
    until("the node to find the path", lambda: tells(owner, start, ["answers again"]))
    owner.must("/rig/maps")
    expect(disks_of_map(owner) != known, "the disk came back under its old name")
    both_write(owner)


def multipath_cut(cluster):
    """Both paths of the owner fail: the task moves, nobody is reset, and the node can have it again
    once they are mended."""
    owner, heir, start = setting(cluster)
    _, _, boots = cluster.standing()
    owner.data.fail(NOT_READY)
    cluster.await_owner(heir, 60)
    report_gap(cluster, start)
    registered(cluster, heir)
    owner.data.heal()
    until("the former owner to let go", lambda: not owner.holds(), 60)
    owner.reinstate()
    cluster.await_whole()
    same_boots(cluster, boots)
    move_back(cluster, owner)
    registered(cluster, owner)
    finish(cluster, start)


def multipath_power_cut(cluster):
    """The owner loses power with a write in each of its paths: taken over, and both come to nothing
    when they arrive. Back again, it is refused by each path."""
    owner, heir, start = setting(cluster)
    disks = disks_of_map(owner)
    for disk in disks:
        owner.start(f"while {write_to(cluster, disk)}; do :; done")
    held = [until(f"a write to be held in {path.name}", lambda: held_write(path))
            for path in owner.data.each]
    owner.power_cut()
    cluster.await_owner(heir)
    report_takeover(cluster, heir, start)
    registered(cluster, heir)
    taken = now()
    owner.data.heal()
    until("what was held to be answered", lambda: all(event.answered for event in held), 10)
    report("held: " + ", ".join(str(event) for event in held))
    expect(all(event.status in (CHECK, CONFLICT) for event in held), "a late write was not refused")
    owner.power_on()
    cluster.await_whole()
    before, back = cluster.standing(), now()
    expect(before[0] == heir.name, "the task went back by itself")
    codes = {disk: owner.run(write_to(cluster, disk)).code for disk in disks_of_map(owner)}
    unchanged(cluster, before)
    expect(all(codes.values()), f"{owner.name} has written, exit codes are {codes}")
    for path in owner.data.each:
        expect(any(event.status == CONFLICT for event in path.since(back)),
               f"the array did not refuse {path.name}")
    refuse_late(owner, taken)
    registered(cluster, heir)
    finish(cluster, start)


def multipath_lvm(cluster):
    """Logical volumes on the map, whose owner loses power."""
    power_cut(cluster)


def disks_of_map(node):
    """The kernel's names of both paths."""
    number = node.must("dmsetup info -c --noheadings --separator : -o major,minor "
                       + multipath_name(DATA)).strip()
    disks = node.must(f"ls /sys/dev/block/{number}/slaves").split()
    expect(len(disks) == 2, f"the map has {disks}")
    return disks


def write_to(cluster, disk):
    """A command that writes by one path, past the map: to the last block of the volume, in which
    the file system has nothing."""
    block = cluster.settings.filesystem.size // BLOCK - 1
    return f"dd if=/dev/zero of=/dev/{disk} bs={BLOCK} seek={block} count=1 conv=notrunc,fsync 2>&1"


def held_write(path):
    """Holds what comes now. Returns what comes first, if it is a write; else lets it go."""
    start = now()
    path.hold_requests()
    first = until("a command to be held", lambda: next(
        (event for event in path.since(start) if event.answered is None), None))
    if first.operation in WRITES:
        return first
    path.heal()
    return None


def both_write(owner):
    """Waits until the owner writes by both paths."""
    start = now()
    until("writes by both paths", lambda: all(path.writes_done(start) for path in owner.data.each))
    expect(not owner.failed_paths(), "the map has given up a path")


def registered(cluster, owner, left=()):
    """The array has a registration of each path of the owner, all with the key that holds the
    volume, and besides only of these ports that were his."""
    stranger = cluster.stranger()
    try:
        key, _ = stranger.reservation()
        found = sorted(stranger.registrants())
    finally:
        stranger.close()
    wanted = sorted((key, port) for port in [*owner.ports(DATA), *left])
    expect(found == wanted, f"registered are {found} and not {wanted}")


needs(multipath_repaired, multipath=True)
needs(multipath_cut, multipath=True)
needs(multipath_power_cut, multipath=True)
needs(multipath_lvm, multipath=True, filesystem="lvm")

ALL = [multipath_repaired, multipath_cut, multipath_power_cut, multipath_lvm]
