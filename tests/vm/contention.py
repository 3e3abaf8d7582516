"""Both nodes change the same blocks at once, and answers of the array are lost on the way."""

import json

from rig import contest
from rig.cluster import BEAT, SPARE, TASK, by_id, now
from rig.guest import until
from rig.initiator import CLEAR, REGISTER_AND_IGNORE, RESERVE
from rig.proxy import ABORTED, Loss
from scenarios import STRANGE_KEY, expect, finish, needs, report, setting, unchanged

# Comparisons that each node sends while the other one is there.
ROUNDS = 5_000
# Of the comparisons that were done, one in so many breaks its session, or is told as aborted.
BREAK_EVERY, ABORT_EVERY = 149, 61
# The same where nothing is lost.
FEW = 500
# How long a contender waits for the other one, in seconds: also for one that has given up, because
# it has found what it looks for.
COMPANY = 20
# Of the register's own; prime to each other, so that they do not fall together for long.
REGISTER_BREAK_EVERY, REGISTER_ABORT_EVERY = 5, 3
# Pairs of commands that each node gives.
PAIRS = 30
# What of a task stands in the view.
AGREED = ["name", "owner", "heir", "wanted", "epoch", "failed_on"]
# Longest time for a contest, for the commands of a node and for a certificate, in seconds.
CONTEST, COMMANDS, CERTIFICATE = 400, 200, 300

# What a node says of a contest that it took part in when it or another one started.
SOUND, BROKEN = "compare-and-write is sound", "lets two nodes win at once"
# For how long a task is watched that must run on, in seconds: several leases.
RUNS_ON = 20

# All questions of `disk certify`.
QUESTIONS = {
    "register", "full-status", "outlives-power", "reserve", "owner-writes", "refuses-write",
    "refuses-compare-and-write", "refuses-flush", "allows-read", "ejects-all-paths",
    "ejected-is-silent", "ejected-is-told", "ejector-holds", "outlives-reset", "compare-and-write",
    "one-winner", "clears"}


def contend(cluster):
    """Both nodes change one block of the heartbeat volume at once, ten thousand times, while
    answers to changes that were done are lost: each change has one winner, and the cluster that
    lives on the same volume goes on as before."""
    _, _, start = setting(cluster)
    before = cluster.standing()
    lost = lose_comparisons(cluster, contest.COUNTER, BREAK_EVERY, ABORT_EVERY)
    reports, wrong = contest_on(cluster, BEAT, ROUNDS)
    mend(cluster)
    report(f"in {now() - start:.0f} s; of those {told(lost)}")
    expect(not wrong, "; ".join(wrong))
    expect(all(one.lost for losses in lost for one in losses), "no answer was lost")
    expect(all(one["rounds"] == ROUNDS for one in reports), "a contender ended before its time")
    cluster.await_whole()
    unchanged(cluster, before)
    finish(cluster, start)


def contend_after_conflict(cluster):
    """A stranger reserves a volume, and comparisons of it are refused. A target that has refused
    one may compare without its lock from then on, as the kernel's does; what the contest says
    afterwards is what the array's own answers prove. Such a target is not chosen unasked."""
    form = f"standfast --node n1 disk format {by_id(SPARE)} --yes --force"
    unasked = cluster.nodes[0].must(form)
    expect("register by paxos, not by compare-and-write" in unasked, f"it was chosen: {unasked}")
    cluster.nodes[0].must(f"{form} --register compare-and-write")
    _, wrong = contest_on(cluster, SPARE, FEW)
    expect(not wrong, "; ".join(wrong))
    stranger = cluster.stranger(SPARE)
    stranger.reserve_out(REGISTER_AND_IGNORE, 0, STRANGE_KEY)
    expect(stranger.reserve_out(RESERVE, STRANGE_KEY) == 0, "the array reserves nothing")
    alone = json.loads(cluster.nodes[0].run(contender(SPARE, 1, wait=1)).text)
    expect(alone["won"] == 0 and alone["unclear"] > 0, f"it was not refused: {alone}")
    stranger.reserve_out(CLEAR, STRANGE_KEY)
    stranger.close()
    reports, wrong = contest_on(cluster, SPARE, FEW)
    said = any(one["verdict"] == "broken" for one in reports)
    expect(said == bool(wrong), f"the contest says {reports}, and wrong is: {wrong}")
    report("after a refusal the array " + ("lets two win" if wrong else "is as it was"))


def start_after_conflict(cluster):
    """Nodes that start on a sound array prove it. One that starts after the array has refused a
    comparison of the heartbeat volume, and may let two win since, finds what a contest by hand has
    found just before: then both nodes name it, and nobody changes the register. The task runs on
    at its owner, until the volume is formatted for a register that needs no comparison."""
    owner, heir, start = setting(cluster)
    for node in cluster.nodes:
        until(f"{node.name} to prove the array", lambda node=node: tells(node, SOUND))
    report("; ".join(f"{node.name}: {tells(node, SOUND)[-1]}" for node in cluster.nodes))
    before = cluster.standing()
    stranger = cluster.stranger(BEAT)
    stranger.reserve_out(REGISTER_AND_IGNORE, 0, STRANGE_KEY)
    expect(stranger.reserve_out(RESERVE, STRANGE_KEY) == 0, "the array reserves nothing")
    alone = json.loads(owner.run(contender(BEAT, 1, wait=1)).text)
    stranger.reserve_out(CLEAR, STRANGE_KEY)
    stranger.close()
    expect(alone["won"] == 0 and alone["unclear"] > 0, f"it was not refused: {alone}")
    cluster.await_whole()
    unchanged(cluster, before)
    _, wrong = contest_on(cluster, BEAT, FEW)
    since = heir.uptime() * 1000
    heir.must(f"kill -TERM {heir.roles()['guard']}")
    if not wrong:
        until("the array to be proved", lambda: tells(heir, SOUND, since))
        cluster.await_whole()
        return finish(cluster, start)
    for node in cluster.nodes:
        until(f"{node.name} to name it", lambda node=node: alarms(node), 60)
    named = now()
    report(f"named {named - start:.0f} s after the beginning: {alarms(heir)[0]}")
    problems = owner.ask(f"disk show {by_id(BEAT)}")["problems"]
    expect(any(BROKEN in one for one in problems), f"disk show tells only {problems}")
    until("the task to run on", lambda: cluster.client.owner() == owner.name
          and cluster.client.answers[-1].at > named + RUNS_ON, 3 * RUNS_ON)
    gap, _, _ = cluster.client.gap(named)
    report(f"silent for {gap * 1000:.0f} ms at most since then")
    unchanged(cluster, before)
    cluster.check_owners(start)
    with_paxos(cluster)
    expect(not any(alarms(node) for node in cluster.nodes), "it is named still")
    finish(cluster, start)


def tells(node, words, since=0):
    """What its history says with these words, of a time after `since`."""
    return [one["outcome"] for one in node.history()
            if words in one["outcome"] and one["uptime_ms"] > since]


def alarms(node):
    return [one for one in (node.status() or {}).get("alarms", []) if BROKEN in one]


def with_paxos(cluster):
    """What the nodes say is to be done. A node that the view lists cannot leave it by then: the
    second signal says that it need not, once it holds nothing."""
    guards = [(node, node.roles()["guard"]) for node in cluster.nodes]
    for node, guard in guards:
        node.must(f"kill $(pidof service); kill -TERM {guard}")
    for node, guard in guards:
        until(f"{node.name} to let go", lambda node=node: not node.holds(), 60)
        until(f"{node.name} to be stopped", lambda node=node, guard=guard: node.run(
            f"kill -TERM {guard}").code != 0, 60, 1)
    cluster.nodes[0].must(f"standfast --node n1 disk format {by_id(BEAT)} --yes --force "
                          "--register paxos")
    for node in cluster.nodes:
        node.must("setsid /rig/service >/dev/null 2>&1 & true")
    cluster.await_whole()


def contest_on(cluster, volume, rounds):
    """Has all nodes contend for a block of this volume; returns what each of them says, and what
    the block and the array's answers prove to be wrong."""
    start, image = now(), cluster.volumes[volume]
    before = contest.read_counter(image)
    running = [(node, node.start(contender(volume, rounds))) for node in cluster.nodes]
    reports = [json.loads(answer_of(*one, CONTEST).text) for one in running]
    paths = [node.path(volume) for node in cluster.nodes]
    done = contest.done(paths, contest.COUNTER, start)
    report(f"{len(done)} changes; " + "; ".join(words(one) for one in reports))
    after = contest.read_counter(image)
    return reports, contest.judge_contest(before, after, reports, len(done))


def contender(volume, rounds, wait=COMPANY):
    return (f"standfast --node $(hostname) disk contend {by_id(volume)} --rounds {rounds} "
            f"--wait {wait} --json")


def register(cluster):
    """Commands that change the view come from both nodes at once, while every few answers to
    changes of the register are lost. Each change has one winner, both nodes end with the same view,
    and each epoch was won by whoever says so: nobody took for lost what was done, nor for done what
    was lost."""
    _, _, start = setting(cluster)
    image = cluster.volumes[BEAT]
    epoch, count = same_view(cluster), contest.read_count(image)
    lost = lose_comparisons(cluster, contest.RECORD, REGISTER_BREAK_EVERY, REGISTER_ABORT_EVERY)
    running = [(node, node.start(orders(node.name))) for node in cluster.nodes]
    said = [answer_of(*one, COMMANDS).text for one in running]
    bad = [line for text in said for line in text.splitlines() if line.startswith("bad")]
    expect(not bad, f"commands failed: {bad}")
    mend(cluster)
    for node in cluster.nodes:
        node.must(f"standfast --node {node.name} online {node.name}", 60)
    cluster.await_whole()
    last = same_view(cluster)
    done = contest.done([node.beat for node in cluster.nodes], contest.RECORD, start)
    grown = contest.read_count(image) - count
    report(f"epochs {epoch + 1} to {last} by {grown} changes of the register in "
           f"{now() - start:.0f} s, of which {told(lost)}")
    expect(all(one.lost for losses in lost for one in losses), "no answer was lost")
    expect(grown == len(done), f"the array has done {len(done)} changes, the record counts {grown}")
    histories = {node.name: node.history(2000) for node in cluster.nodes}
    wrong = contest.judge_histories(histories, epoch, last)
    expect(not wrong, "; ".join(wrong))
    finish(cluster, start)


def certify(cluster):
    """`disk certify` on both nodes, on an empty volume of the array: every question is answered,
    what this target fails is known and named, and nothing is left on the volume."""
    start = now()
    command = (f"standfast disk certify {by_id(SPARE)} --force --yes --rounds {FEW} --settle 5 "
               "--json")
    first, second = cluster.nodes
    running = [(second, second.start(f"{command} --second")), (first, first.start(command))]
    said = {node.name: json.loads(answer_of(node, answer, CERTIFICATE).text)
            for node, answer in running}[first.name]
    failed = {one["asked"]: one for one in said["findings"] if one["verdict"] != "passed"}
    report(f"{len(said['findings'])} findings in {now() - start:.0f} s, fit: {said['fit']}; "
           + "; ".join(f"{asked}: {one['detail']}" for asked, one in failed.items()))
    asked = {one["asked"] for one in said["findings"]}
    expect(asked == QUESTIONS, f"asked only {asked}, or more than {QUESTIONS}")
    unknown = [one for one in failed.values() if not one["known"]]
    expect(not unknown, f"nothing is known of what failed: {unknown}")
    stranger = cluster.stranger(SPARE)
    left = stranger.keys(), stranger.reservation()
    stranger.close()
    expect(left == ([], None), f"left on the volume: {left}")


def lose_comparisons(cluster, place, break_every, abort_every):
    """Loses answers to comparisons of this block, on all nodes' paths."""
    lost = []
    for node in cluster.nodes:
        which = contest.is_of(place)
        losses = [Loss(which, break_every), Loss(which, abort_every, ABORTED)]
        node.beat.lose(*losses)
        lost.append(losses)
    return lost


def mend(cluster):
    for node in cluster.nodes:
        node.beat.heal()


def told(lost):
    broke = sum(len(broken.lost) for broken, _ in lost)
    aborted = sum(len(one.lost) for _, one in lost)
    return f"{broke} broke a session and {aborted} were told as aborted"


def words(one):
    return ", ".join(f"{one[key]} {key}" for key in ("won", "refused", "unclear"))


def answer_of(node, answer, patience):
    """What a command ended with that must not have failed."""
    result = answer.get(timeout=patience)
    expect(result is not None, f"{node.name} was reset")
    return result


def orders(name):
    """A script that sets a node in standby and online again and fetches the task, many times, and
    says which command ended badly. 4 is a refusal with a reason, such as that the node is in
    standby by then."""
    command = f"standfast --node {name}"
    return (f"tell() {{ {command} \"$@\" --no-wait 2>&1 || [ $? = 4 ] || echo \"bad: $*\"; }}; "
            f"for pair in $(seq {PAIRS}); do tell standby {name}; tell online {name}; "
            f"[ $((pair % 5)) != 0 ] || tell move {TASK} {name}; done")


def same_view(cluster):
    """Waits until all nodes know the same view, and the disk holds it; returns its epoch."""

    def epoch():
        views = [cluster.nodes[0].ask(f"disk show {by_id(BEAT)}")["view"]]
        for node in cluster.nodes:
            view = node.status()
            view["standby"] = [one["name"] for one in view["nodes"] if one["standby"]]
            views.append(view)
        seen = {json.dumps([view["epoch"], view["standby"],
                            [[task[key] for key in AGREED] for task in view["tasks"]]])
                for view in views}
        return len(seen) == 1 and views[0]["epoch"]

    return until("one view", epoch)


for one in (contend, register, contend_after_conflict, certify):
    # Guests that do nothing but ask the array stand still for longer on a busy host.
    needs(one, detect="10s")

# It has to leave the volume with another register.
needs(start_after_conflict, detect="9s")

# The certificate is the last of those on one array: it makes that refuse comparisons of the spare
# volume, too.
ALL = [contend, register, contend_after_conflict, certify, start_after_conflict]
