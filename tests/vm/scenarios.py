"""What happens to the cluster, and what must follow. Each scenario is a function with a sentence; it
gets a whole cluster with the task running, and leaves one that `heal` can make whole."""

from rig.cluster import now

# A line of the volume object.
VOLUME = ""


def report(text):
    print(f"  {text}", flush=True)


def power_cut(cluster):
    """The owner loses power while it writes: taken over, nothing written late, nothing lost."""
    owner = cluster.owner()
    heir = cluster.other(owner)
    start = now()
    owner.power_cut()
    cluster.await_owner(heir)
    report_gap(cluster, start)
    owner.power_on()
    cluster.await_whole()
    cluster.audit()


def report_gap(cluster, since):
    gap, before, after = cluster.client.gap(since)
    report(f"silent for {gap * 1000:.0f} ms, from {before} to {after}")


ALL = [power_cut]
