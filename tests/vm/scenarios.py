"""What happens to the cluster, and what must follow.

Each scenario is a function with a sentence. It gets a whole cluster with the task running, and
leaves one that `heal` can make whole. One that needs another cluster says so with `needs`.
"""

import time

from rig.cluster import DATA, HEARTBEATS, OTHER, now
from rig.guest import Trouble, until
from rig.initiator import CLEAR, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE
from rig.proxy import CHECK, CONFLICT, HARDWARE, PERSISTENT_RESERVE, RESERVE_OUT, round_trips

# A line of the volume object.
VOLUME = 'reservation = "scsi"'
# A key that is no node's.
STRANGE_KEY = 0x5354_5241_4E47_4552
# What a record has that tells of a lost reservation, or of a wrong volume.
RESERVATION_WORDS = ["fenced", "registered by others"]
IDENTITY_WORDS = ["is not the disk"]
# Longest time until a node is back after its watchdog, a panic or a reset, in seconds.
BACK = 60


def power_cut(cluster):
    """The owner loses power while it writes: taken over, nothing written late, nothing lost."""
    owner, heir, start = setting(cluster)
    owner.power_cut()
    cluster.await_owner(heir)
    report_takeover(cluster, heir, start)
    owner.power_on()
    cluster.await_whole()
    finish(cluster, start)


def late_write(cluster):
    """Writes of the owner still lie in its path when it loses power; they arrive after the
    takeover, and are refused."""
    owner, heir, start = setting(cluster)
    owner.data.hold_requests()
    held = until("a write to be held", lambda: [
        event for event in owner.data.since(start) if event.answered is None])
    owner.power_cut()
    cluster.await_owner(heir)
    taken = now()
    owner.data.heal()
    until("what was held to be answered", lambda: all(event.answered for event in held), 10)
    report("held: " + ", ".join(str(event) for event in held))
    refuse_late(owner, taken)
    owner.power_on()
    cluster.await_whole()
    finish(cluster, start)


def paused(cluster):
    """The owner's clocks stand still for ten seconds: it wakes up believing its lease. Its writes
    are refused, and it lets go as soon as it knows."""
    owner, heir, start = setting(cluster)
    owner.pause()
    cluster.await_owner(heir)
    time.sleep(max(0.0, start + 10 - now()))
    resumed = now()
    owner.resume()
    until("the former owner to let go", lambda: not owner.holds(), 30)
    report(f"all let go, the volume too, was seen {now() - resumed:.1f} s after it woke up")
    report_last_answer(cluster, owner, resumed)
    cluster.await_whole()
    refuse_late(owner, resumed)
    expect(cluster.owner() is heir, "the task went back by itself")
    cluster.audit()


def frozen(cluster):
    """The owner's host stalls for ten seconds, its clocks run on: it wakes up knowing that its
    lease is over."""
    owner, heir, start = setting(cluster)
    owner.freeze()
    cluster.await_owner(heir)
    time.sleep(max(0.0, start + 10 - now()))
    thawed = now()
    owner.thaw()
    until("the former owner to let go", lambda: not owner.holds(), 30)
    report(f"all let go, the volume too, was seen {now() - thawed:.1f} s after it woke up")
    report_last_answer(cluster, owner, thawed)
    cluster.await_whole()
    refuse_late(owner, thawed)
    cluster.audit()


def watchdog(cluster):
    """Core and guard stop at once in a running owner: the hardware resets it."""
    hang(cluster, "WATCHDOG")


def softdog(cluster):
    """The same with the kernel's own watchdog, which is all that some machines have."""
    owner = cluster.owner()
    boot = owner.agent.boot_id
    owner.must("ln -sf /dev/watchdog1 /dev/watchdog-rig")
    owner.must(f"kill -TERM {owner.roles()['guard']}")
    cluster.await_owner(cluster.other(owner))
    cluster.await_whole()
    expect(owner.agent.boot_id == boot, f"{owner.name} was reset by leaving the cluster")
    owner.must(f"standfast --node {owner.name} move web {owner.name}", 60)
    cluster.await_owner(owner)
    hang(cluster, "RESET")


def hang(cluster, event):
    """Stops core and guard of the owner; waits for this event of its machine."""
    owner, heir, start = setting(cluster)
    boots, seen = owner.agent.boots, owner.monitor.count(event)
    roles = owner.roles()
    owner.must(f"kill -STOP {roles['guard']} {roles['core']}")
    cluster.await_owner(heir)
    until("the watchdog to fire", lambda: owner.monitor.count(event) > seen, 30)
    report(f"reset {now() - start:.1f} s after the hang; two owners answered "
           f"{len(cluster.client.two_owners(start))} questions of a hundred a second")
    owner.agent.await_boot(boots, BACK)
    cluster.await_whole()
    cluster.audit()


def guard_killed(cluster):
    """The guard of the owner is killed: it is started again, or the node is reset; either way the
    task runs, once."""
    owner, _, start = setting(cluster)
    boot = owner.agent.boot_id
    owner.must(f"kill -KILL {owner.roles()['guard']}")
    cluster.await_whole()
    report(f"{cluster.owner().name} has the task, {owner.name} was "
           + ("not reset" if owner.agent.boot_id == boot else "reset"))
    finish(cluster, start)


def storage_path_cut(cluster):
    """The owner's path to the data fails with errors: the task moves, nobody reboots, and the node
    can have the task again once the path is mended."""
    owner, heir, start = setting(cluster)
    _, _, boots = cluster.standing()
    owner.data.fail(HARDWARE)
    cluster.await_owner(heir, 60)
    report_gap(cluster, start)
    owner.data.heal()
    until("the former owner to let go", lambda: not owner.holds(), 60)
    cluster.await_whole()
    same_boots(cluster, boots)
    move_back(cluster, owner)
    finish(cluster, start)


def storage_path_hung(cluster):
    """The owner's path to the data gives no answer at all: the task moves, and the node can have it
    again once the path is mended."""
    owner, heir, start = setting(cluster)
    boot = owner.agent.boot_id
    owner.data.hold_requests()
    cluster.await_owner(heir, 90)
    report_gap(cluster, start)
    taken = now()
    owner.data.heal()
    cluster.await_whole()
    until("the former owner to let go", lambda: not owner.holds(), 60)
    refuse_late(owner, taken)
    report(f"{owner.name} was {'not ' if owner.agent.boot_id == boot else ''}reset")
    move_back(cluster, owner)
    finish(cluster, start)


def array_gone(cluster):
    """Both volumes give no answer for thirty seconds, for everybody: nobody shoots anybody, and the
    task goes on where it was."""
    before, start = cluster.standing(), now()
    cluster.target.freeze()
    time.sleep(30)
    cluster.target.thaw()
    cluster.await_whole()
    unchanged(cluster, before)
    await_writes(cluster)
    finish(cluster, start)


def array_power_cycle(cluster):
    """The array loses power and comes back: registrations and reservation are as before, and so
    is everything else."""
    before, start = cluster.standing(), now()
    held = reservation_of(cluster)
    cluster.target.power_cut()
    cluster.target.power_on()
    cluster.await_whole()
    unchanged(cluster, before)
    after = reservation_of(cluster)
    expect(after == held, f"the reservation was {held} and is {after}")
    await_writes(cluster)
    finish(cluster, start)


def cables_cut(cluster):
    """Both cables between the nodes carry nothing any more, the disk does: nothing moves."""
    lose_cables(cluster, incoming=True)


def one_way(cluster):
    """What the owner sends by cable is lost, it hears the others, and the disk lives: nothing
    moves."""
    lose_cables(cluster, incoming=False)


def lose_cables(cluster, incoming):
    """Cuts both cables of the owner until the other node has missed it on them."""
    owner, other, start = setting(cluster)
    before = cluster.standing()
    cluster.switch.cut(owner.name, HEARTBEATS, incoming=incoming)

    def missed():
        links = [link for link in other.status()["links"] if link["name"] in HEARTBEATS]
        return all(link["peers"][owner.name] > 4000 for link in links)

    until(f"{other.name} to miss it on both cables", missed)
    unchanged(cluster, before)
    cluster.switch.heal()
    cluster.await_whole()
    unchanged(cluster, before)
    finish(cluster, start)


def service_cable(cluster):
    """The owner's cable to the clients is pulled: the task is handed to the node whose cable is
    not."""
    owner, heir, start = setting(cluster)
    _, _, boots = cluster.standing()
    owner.cable("svc0", False)
    cluster.await_owner(heir)
    report_gap(cluster, start)
    owner.cable("svc0", True)
    cluster.await_whole()
    same_boots(cluster, boots)
    finish(cluster, start)


def cut_off(cluster):
    """The owner loses its cables and both its paths, but lives: another takes over, the owner lets
    go, and what its path still held is refused when it arrives."""
    owner, heir, start = setting(cluster)
    cluster.switch.cut(owner.name, HEARTBEATS)
    owner.beat.hold_requests()
    owner.data.hold_requests()
    cluster.await_owner(heir)
    report_takeover(cluster, heir, start)
    # A machine whose watchdog resets it while its path hangs comes back only with the path.
    until("the owner to fall silent", lambda: not cluster.client.heard(owner.name, now() - 0.5))
    taken = now()
    cluster.switch.heal()
    owner.beat.heal()
    owner.data.heal()
    cluster.await_whole()
    until("the former owner to let go", lambda: not owner.holds(), 60)
    refuse_late(owner, taken)
    finish(cluster, start)


def panic(cluster):
    """The owner's kernel panics and hangs: taken over, and the watchdog resets it."""
    owner, heir, start = setting(cluster)
    boots = owner.agent.boots
    owner.start("echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger")
    cluster.await_owner(heir)
    report_takeover(cluster, heir, start)
    owner.agent.await_boot(boots, BACK)
    cluster.await_whole()
    finish(cluster, start)


def three_resets(cluster):
    """The reset button of the owner, three times in a row: taken over once, and nobody else is
    touched."""
    owner, heir, start = setting(cluster)
    boot = heir.agent.boot_id
    for _ in range(3):
        owner.reset()
    cluster.await_owner(heir)
    cluster.await_whole()
    expect(cluster.owner() is heir, "the task went back by itself")
    expect(heir.agent.boot_id == boot, f"{heir.name} was reset too")
    finish(cluster, start)


def fast_reboot(cluster):
    """The owner is back before anybody could miss it: its new boot proves that its old life is
    over, and the task runs again without waiting for `detect`."""
    owner, heir, start = setting(cluster)
    epoch = cluster.task(owner)["epoch"]
    owner.reset()
    cluster.await_whole()
    report_gap(cluster, start)
    task = cluster.task(cluster.owner())
    expect(task["epoch"] > epoch, "the task has the epoch of its old life")
    expect(not any("suspected" in one["outcome"] for one in heir.history()),
           f"{owner.name} was missed before it was back: this took longer than was meant")
    finish(cluster, start)


def fence(cluster):
    """A takeover has the volume after at most five round trips to the array, those that only heard
    a unit attention left out. The array is far away, so that what goes side by side can be told."""
    owner, heir, start = setting(cluster)
    heir.data.delay = 0.1
    owner.power_cut()
    cluster.await_owner(heir)
    asked = fencing(heir, start)
    report("asked: " + ", ".join(f"{event.asked - start:.3f} s: {event}" for event in asked))
    expect(asked, "no reservation was taken")
    count = round_trips(asked) - round_trips([event for event in asked if event.status == CHECK])
    heir.data.heal()
    expect(count <= 5, f"it took {count} round trips")
    owner.power_on()
    cluster.await_whole()
    finish(cluster, start)


def fencing(heir, start):
    """What a takeover asked the array until it knew that it has the volume: up to its last change
    and the look after that."""
    events = [event for event in heir.data.since(start) if event.operation in PERSISTENT_RESERVE]
    changed = max((event.answered for event in events
                   if event.operation == RESERVE_OUT and event.answered), default=0)
    looks = [event.heard for event in events if event.asked > changed and event.heard]
    return [event for event in events if event.asked < min(looks, default=now())]


def reservation_cleared(cluster):
    """Somebody clears all registrations of the volume: noticed and named, and at the end the volume
    is reserved again by whoever runs the task."""
    owner, _, start = setting(cluster)
    stranger = cluster.stranger()
    stranger.reserve_out(REGISTER_AND_IGNORE, 0, STRANGE_KEY)
    expect(stranger.reserve_out(CLEAR, STRANGE_KEY) == 0, "the array did not clear anything")
    until("the volume to be reserved again", stranger.reservation, 60)
    stranger.close()
    cluster.await_whole()
    until("the node to tell of it", lambda: tells(owner, start, RESERVATION_WORDS), 30)
    await_writes(cluster)
    finish(cluster, start)


def reservation_stolen(cluster):
    """A stranger takes the volume for himself: no node writes any more, and none takes it back from
    somebody it does not know; the task runs again when he has gone."""
    owner, heir, start = setting(cluster)
    stranger = cluster.stranger()
    key, _ = stranger.reservation()
    stranger.reserve_out(REGISTER_AND_IGNORE, 0, STRANGE_KEY)
    status = stranger.reserve_out(PREEMPT_AND_ABORT, STRANGE_KEY, key)
    expect(status == 0, f"the array did not let the stranger in: status {status:#x}")
    stolen = now()
    until("a node to tell of it",
          lambda: any(tells(node, start, RESERVATION_WORDS) for node in cluster.nodes), 60)
    until("the task to be let go", lambda: not any(node.holds() for node in cluster.nodes), 60)
    wrote = owner.data.writes_done(stolen + 0.5) + heir.data.writes_done(stolen + 0.5)
    expect(not wrote, f"{len(wrote)} writes took effect on a volume that a stranger holds")
    expect(stranger.reservation()[0] == STRANGE_KEY, "a node has thrown the stranger out")
    stranger.reserve_out(CLEAR, STRANGE_KEY)
    stranger.close()
    cluster.start_task()
    await_writes(cluster)
    finish(cluster, start)


def volume_swapped(cluster):
    """Another volume answers where the task's own was: nothing is written to it, it is named,
    and with the right volume back the task runs again.

    Between the exchange and the owner's next question nothing on earth holds back what its kernel
    has to write: that is written before."""
    owner, _, start = setting(cluster)
    other = cluster.content(OTHER)
    owner.run("sync", 30)
    cluster.expose(OTHER)
    try:
        until("a node to tell of it",
              lambda: any(tells(node, start, IDENTITY_WORDS) for node in cluster.nodes), 90)
        until("the task to be let go", lambda: not any(node.holds() for node in cluster.nodes), 60)
    finally:
        cluster.expose(DATA)
    wrong = cluster.changed(OTHER, other)
    expect(not wrong, f"the wrong volume was written to, at {wrong[:10]}")
    cluster.start_task()
    await_writes(cluster)
    finish(cluster, start)


def tells(node, start, words):
    """Has this node a record since then that has one of the words?"""
    since = (node.uptime() + start - now()) * 1000
    return any(word in str(entry) for entry in node.history(50)
               if entry["uptime_ms"] > since for word in words)


def setting(cluster):
    """Owner, heir, and the moment before anything happens; the owner writes."""
    cluster.client.forget()
    await_writes(cluster)
    owner = cluster.owner()
    return owner, cluster.other(owner), now()


def finish(cluster, start):
    """What must hold after every scenario in which no clock stood still."""
    cluster.check_owners(start)
    cluster.audit()


def await_writes(cluster):
    """Waits until the owner writes to the volume."""
    path, start = cluster.owner().data, now()
    until("a write of the owner", lambda: path.writes_done(start))


def refuse_late(owner, since):
    """Nothing that a former owner wrote took effect since then."""
    late = owner.data.writes_done(since)
    expect(not late, f"{len(late)} writes of {owner.name} took effect after it was out, "
                     f"the first: {late[0] if late else ''}")
    refused = [event for event in owner.data.events
               if event.status == CONFLICT and event.answered >= since]
    report(f"the array refused {len(refused)} commands of {owner.name}")


def move_back(cluster, node):
    node.must(f"standfast --node {node.name} move web {node.name}", 60)
    cluster.await_owner(node)


def same_boots(cluster, boots):
    now_ = {node.name: node.agent.boot_id for node in cluster.nodes}
    expect(now_ == boots, "a node was reset that needed none")


def unchanged(cluster, before):
    after = cluster.standing()
    expect(after == before, f"it was {before} and is {after}")


def reservation_of(cluster):
    stranger = cluster.stranger()
    try:
        return stranger.reservation(), sorted(set(stranger.keys()))
    finally:
        stranger.close()


def expect(holds, otherwise):
    if not holds:
        raise Trouble(otherwise)


def report(text):
    print(f"  {text}", flush=True)


def report_gap(cluster, since):
    gap, before, after = cluster.client.gap(since)
    report(f"silent for {gap * 1000:.0f} ms, from {before} to {after}")


def report_last_answer(cluster, former, woke):
    """Until when a former owner that woke up still answered the client."""
    late = [one.at for one in cluster.client.answers if one.at > woke and one.node == former.name]
    last = f"{(max(late) - woke) * 1000:.0f} ms after it woke up" if late else "before it slept"
    report(f"it answered last {last}, {len(late)} questions of a hundred a second")


def report_takeover(cluster, heir, start):
    """The gap and its parts: what the new owner's records tell, what its path to the volume saw,
    and what the client heard."""
    report_gap(cluster, start)
    shift = heir.uptime() - now()

    def first(*words):
        """When the first record since then with one of these words was made, and its text."""
        for entry in heir.history(30):
            at = entry["uptime_ms"] / 1000 - shift
            if at > start and any(word in entry["outcome"] for word in words):
                return at, entry["outcome"]
        return None, ""

    def span(since, until_):
        return "?" if None in (since, until_) else f"{(until_ - since) * 1000:.0f}"

    suspected, _ = first("suspected")
    won, _ = first(f"owner {heir.name}")
    started, details = first("started in")
    fenced = fencing(heir, start)
    asked = min((event.asked for event in fenced), default=0)
    fence = max((event.answered for event in fenced if event.answered), default=asked) - asked
    heard = [one.at for one in cluster.client.answers
             if one.at > start and one.node == heir.name and one.reachable]
    report(f"in ms: detect {span(start, suspected)}, register {span(suspected, won)}, until "
           f"started {span(won, started)} ({details}), until heard "
           f"{span(started, min(heard, default=None))}; fence {fence * 1000:.0f} in "
           f"{round_trips(fenced)} round trips")


def needs(scenario, **settings):
    """Gives a scenario a cluster of its own."""
    scenario.settings = settings


needs(fast_reboot, detect="30s")

ALL = [
    power_cut, late_write, paused, frozen, watchdog, guard_killed, softdog, storage_path_cut,
    storage_path_hung, array_gone, array_power_cycle, cables_cut, one_way, service_cable, cut_off,
    panic, three_resets, fence, reservation_cleared, reservation_stolen, volume_swapped,
    fast_reboot,
]
