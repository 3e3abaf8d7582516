"""The same faults on other clusters: another file system, a partition, a logical volume, no file
system, a third node, an object that cannot be stopped."""

import re

from rig.cluster import BEAT, DATA, HEARTBEATS, by_id, now
from rig.guest import until
from scenarios import (BACK, await_writes, expect, finish, move_back, needs, paused, power_cut,
                       refuse_late, report, report_gap, setting, storage_path_cut, unchanged)

# Starts, runs and stops as a file says, and takes its time for it; cannot be stopped where there is
# another file.
STUBBORN = """
[[task.object]]
name = "stubborn"
kind = "script"
step = 2
start = ["/bin/touch", "/run/stubborn"]
stop = ["/bin/sh", "-c", "sleep 0.3; test -e /run/no-stop || rm -f /run/stubborn"]
probe = ["/bin/sh", "-c", "sleep 0.3; test -e /run/stubborn || exit 3"]
"""


def xfs_power_cut(cluster):
    """The owner of an XFS loses power while it writes: its journal is replayed by the heir."""
    power_cut(cluster)


def xfs_paused(cluster):
    """The owner of an XFS wakes up after ten seconds and believes its lease: its journal is refused
    like its data, and it lets go of a file system that has shut itself down."""
    paused(cluster)


def partition(cluster):
    """The volume is a partition: the disk that it lies on is reserved, and the rest is the same."""
    power_cut(cluster)


def raw_device(cluster):
    """No file system: a program has the disk itself. Its runner is killed, and the next one knows
    that it is in use. Its node loses power: taken over, and moved back as planned; the array has
    refused whatever came late, and nobody of the task had it open after a stop."""
    before, start = cluster.standing(), now()
    owner = cluster.owner()
    runner = owner.roles()["runner"]
    owner.must(f"kill -KILL {runner}")
    until("another runner", lambda: owner.roles().get("runner") not in (None, 0, runner))
    cluster.await_whole()
    unchanged(cluster, before)
    cluster.check_owners(start)
    power_cut(cluster)
    owner, heir, start = setting(cluster)
    move_back(cluster, heir)
    moved = now()
    opened = owner.must(f"disk=$(readlink -f {by_id(DATA)}); "
                        "ls -l /proc/[0-9]*/fd 2>/dev/null | grep \"> $disk$\" || true")
    expect(not opened, f"the former owner has the device open: {opened}")
    await_writes(cluster)
    refuse_late(owner, moved)
    finish(cluster, start)


def lvm(cluster):
    """An ext4 on a logical volume, and a raw one of the same group. The owner loses power while a
    disk of the heir that has nothing to do with it hangs: the heir takes over disk and group. Then
    the owner's path to the disk fails: what is left of the volumes there is taken away without the
    disk, and after the way back nobody else has them."""
    _, heir, _ = setting(cluster)
    heir.spare.hold_requests()
    power_cut(cluster)
    heir.spare.heal()
    storage_path_cut(cluster)
    owner, other, _ = setting(cluster)
    expect(system_of_group(other) == owner.name, "the group is not its owner's")
    expect(active(owner) == ["vg0-data", "vg0-log"], f"the owner has {active(owner)}")
    expect(not active(other), f"a former owner still has {active(other)}")


def active(node):
    """The group's volumes that are devices on this node."""
    return sorted(re.findall(r"^vg0-\w+", node.must("dmsetup ls"), re.MULTILINE))


def system_of_group(node):
    return node.must("lvm vgs --foreign --noheadings -o systemid vg0 2>/dev/null").strip()


def three_nodes(cluster):
    """Of three nodes the owner loses power: one of the others takes over. Then that one does, and
    the last goes on alone. With all three back the owner is cut off from cables and volumes: it
    lets go, and one of the two that still see each other takes over."""
    cluster.client.forget()
    await_writes(cluster)
    first, start = cluster.owner(), now()
    first.power_cut()
    second = successor(cluster, first)
    second.power_cut()
    third = successor(cluster, first, second)
    await_writes(cluster)
    for node in [first, second]:
        node.power_on()
    cluster.await_whole()
    expect(cluster.owner() is third, "the task went back by itself")
    finish(cluster, start)
    cut_off_one(cluster)


def cut_off_one(cluster):
    """The owner loses its cables to the others and both its volumes."""
    await_writes(cluster)
    owner, start = cluster.owner(), now()
    boots = {node.name: node.agent.boot_id for node in cluster.others(owner)}
    cluster.switch.cut(owner.name, HEARTBEATS)
    owner.beat.hold_requests()
    owner.data.hold_requests()
    heir = successor(cluster, owner)
    # A machine whose watchdog resets it while its path hangs comes back only with the path.
    until("the owner to fall silent", lambda: not cluster.client.heard(owner.name, now() - 0.5))
    taken = now()
    cluster.switch.heal()
    owner.beat.heal()
    owner.data.heal()
    cluster.await_whole()
    until("the former owner to let go", lambda: not owner.holds(), 60)
    refuse_late(owner, taken)
    expect(cluster.owner() is heir, "the task went back by itself")
    after = {node.name: node.agent.boot_id for node in cluster.others(owner)}
    expect(after == boots, "a node was reset that needed none")
    finish(cluster, start)


def successor(cluster, *gone):
    """Waits until one of the others has the task, and only that one has anything of it."""
    start = now()
    left = {node.name for node in cluster.others(*gone)}
    heir = cluster.node(until(f"one of {sorted(left)} to answer",
                              lambda: cluster.client.owner() in left and cluster.client.owner()))
    report_gap(cluster, start)
    holders = [node.name for node in cluster.others(*gone) if node.holds()]
    expect(holders == [heir.name], f"{heir.name} answers, and {holders} have something of the task")
    report(f"{heir.name} has taken over, of {sorted(left)}")
    return heir


def unstoppable(cluster):
    """An object of the task cannot be stopped: a planned move ends there, and nobody else starts
    the task. Then the owner's core hangs: with the lease over, its guard leaves why on the shared
    disk and has the kernel reset the node, long before the watchdog would. The other node has read
    the reason, and the task, while this one boots; and this one tells it too."""
    owner, heir, start = setting(cluster)
    boot, boots = owner.agent.boot_id, owner.agent.boots
    fired = owner.monitor.count("WATCHDOG")
    console = Console(owner)
    owner.must("touch /run/no-stop")
    move = owner.start(f"standfast --node {owner.name} move web {heir.name}")
    until("the stop to fail",
          lambda: cluster.task(heir)["states"].get(owner.name) == "stop-failed")
    expect(owner.monitor.last("RESET") is None, f"{owner.name} was reset with a valid lease")
    hung = now()
    owner.must(f"kill -STOP {owner.roles()['core']}")
    cluster.await_owner(heir)
    down = owner.monitor.last("RESET")
    expect(down and down > hung, f"{owner.name} was not reset")
    early = [one for one in cluster.client.answers
             if one.node == heir.name and start < one.asked < down]
    expect(not early, f"{heir.name} answered before {owner.name} was down: {early[:1]}")
    report(f"reset {down - hung:.1f} s after its core hung; {heir.name} was heard "
           f"{now() - down:.1f} s later")
    read_last_words(heir, owner, boot)
    owner.agent.await_boot(boots, BACK)
    expect(move.get(timeout=1) is None, "the move had an end before the node was reset")
    cluster.await_whole()
    expect(owner.monitor.count("WATCHDOG") == fired, "it was the watchdog that reset it")
    console.must_show("sysrq: Resetting", "standfast: resetting this node")
    told_after_boot(owner)
    expect(cluster.owner() is heir, "the task went back by itself")
    finish(cluster, start)


def read_last_words(reader, fallen, boot):
    """What a node that is down has left on the heartbeat volume, as another one shows it."""
    shown = reader.ask(f"disk show {by_id(BEAT)}")
    words = {node["name"]: node["last_words"] for node in shown["nodes"] if node["last_words"]}
    expect(list(words) == [fallen.name], f"the last words on the disk are {words}")
    said = words[fallen.name]
    expect("could not be stopped" in said["reason"], f"the reason is {said['reason']}")
    expect(said["tasks"] == ["web"], f"the tasks are {said['tasks']}")
    expect(said["boot"] == boot.replace("-", ""), f"they are of boot {said['boot']}, not {boot}")
    text = reader.must(f"standfast --node {reader.name} disk show {by_id(BEAT)}")
    report(next(line.strip() for line in text.splitlines() if "reset itself" in line))


def told_after_boot(node):
    """A node that has reset itself says so once it is back, and blames nobody else."""
    def telling(words):
        return [entry for entry in node.history() if words in entry["outcome"]]

    fell = telling("this node reset itself")
    expect([entry["task"] for entry in fell] == ["web"], f"of its fall it tells {fell}")
    blamed = telling("by the watchdog")
    expect(not blamed, f"it tells {blamed}")


class Console:
    """What a machine says on its console from now on."""

    def __init__(self, node):
        self.path = node.directory / "console.log"
        self.before = len(self.path.read_bytes())

    def must_show(self, *wanted):
        said = self.path.read_bytes()[self.before:].decode(errors="replace")
        missing = [words for words in wanted if words not in said]
        expect(not missing, f"the console does not show {missing}")


needs(xfs_power_cut, filesystem="xfs")
needs(xfs_paused, filesystem="xfs")
needs(partition, filesystem="partition")
needs(raw_device, filesystem="raw")
needs(lvm, filesystem="lvm")
needs(three_nodes, nodes=3)
needs(unstoppable, objects=STUBBORN)

ALL = [xfs_power_cut, xfs_paused, partition, raw_device, lvm, three_nodes, unstoppable]
