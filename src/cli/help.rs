//! What `standfast COMMAND --help` says first, one paragraph for each thing to know.

/// `init`.
pub(super) const INIT: &str = "\
Writes a first configuration and the cluster's secret.\n\n\
Run it once, on one node, then copy both files to the others. The configuration is full of \
remarks and holds an example of each kind of object. Files that are there are left alone; with \
--force they are kept beside the new ones as `.old`.";

/// `check`.
pub(super) const CHECK: &str = "\
Checks the configuration and prints every time that follows from it.\n\n\
Problems come with file, line and what to write instead. With --live this machine is compared \
with it too: interfaces, disks with their measured latency, watchdog, cgroups, secret, and the \
volume groups of its tasks with what LVM needs for them. The disk's heartbeat slot of this node is \
written only while its daemon is down.\n\n\
A volume group needs nodes with LVM system ids (lvmsystemid(7)): `system_id_source = \"uname\"` in \
/etc/lvm/lvm.conf. Whoever owns its disks takes it over; `vgchange --setautoactivation n` keeps a \
boot from activating it before.";

/// `status`.
pub(super) const STATUS: &str = "\
Shows the cluster as this node sees it: who sees it, how old each datum is, nodes, links, \
register, tasks, alarms.\n\n\
Exits with 0 if all is well, 1 if there is an alarm or a task that should run and does not, 3 \
if the daemon is down.";

/// `why`.
pub(super) const WHY: &str = "\
Tells why a task is where it is: the latest decisions about it, newest first, each with what \
set it off, what was seen, the rule that applied, what was not done and why, and what was \
done. The evidence is with the node that decided.";

/// `history`.
pub(super) const HISTORY: &str = "\
Shows what happened on this node, newest last. Times are of this node's wall clock, in UTC.";

/// `move`.
pub(super) const MOVE: &str = "\
Hands a task over to another node, once: it is stopped here, then started there. It does not \
go back by itself.";

/// `confirm-off`.
pub(super) const CONFIRM_OFF: &str = "\
Vouches that a node is switched off.\n\n\
Needed only where a node starts alone and waits because others, out of its sight, could still \
be at work. If the node is not off, its tasks may then run twice and destroy their data: look \
at the machine, or pull its plug, before you say yes.";

/// `fence`.
pub(super) const FENCE: &str = "\
Switches a node off through the devices that the configuration names for it ([[fence]]).\n\n\
The cluster does so by itself with a node that it has put out. By hand it is for a node that is \
in nobody's way but must go, and for the day on which you want to know that it works. All devices \
of a level have to say that they have done it, and then, asked again, that the node is off; if one \
does not, the next level is tried.\n\n\
`fence test` switches nothing: it asks every device whether the node is on. The daemon does the \
same at its start and every hour, and what fails is an alarm.";

/// `disk format`.
pub(super) const FORMAT: &str = "\
Writes the cluster's area to a disk: heartbeat slots and the register.\n\n\
Run it once, on one node. It shows what it would destroy, and asks on a terminal. What looks \
used is refused unless --force; what is mounted, claimed or being written to by a node is \
refused always.\n\n\
The register is changed by SCSI COMPARE AND WRITE if the disk offers it, is not known to do it \
wrongly, and passes a test; else by plain writes, which take longer. `disk contend` proves the \
rest, from two nodes, and so does every start of a node: a disk that fails is named by `status`, \
and its register is not changed any more until the disk is formatted with --register paxos.\n\n\
A register on three disks is always changed by plain writes and goes on while any two of them \
work. Name all three, in the order of their links in the configuration. When one is dead for good, \
stop Standfast on all nodes and run this with --replace and the new device, which stands in the \
configuration in the place of the dead one: it is filled from the two others, and the dead one \
never counts again.";

/// `disk contend`.
pub(super) const CONTEND: &str = "\
Proves that COMPARE AND WRITE of a disk has one winner.\n\n\
Run it on two or more nodes at the same time. Each of them counts up in one block of the area by \
commands that all try to win; whose win is missing afterwards tells a disk that only claims to \
compare. The cluster may run meanwhile: in the same block a node that starts does the same with \
those that run, for a few seconds. Exits with 0 if the disk is \
proved, 1 if no other node was there at the same time, 6 if a win was lost.";

/// `disk show`.
pub(super) const SHOW: &str = "\
Shows what the cluster's area on a disk holds: header, what each node wrote last, the \
register's newest view in words, and all that is damaged. Reads only. Exits with 1 if anything \
is wrong.";

/// `disk certify`.
pub(super) const CERTIFY: &str = "\
Tests from two nodes whether a disk array does what a cluster needs of it.\n\n\
Run it at the same time on two nodes, on an empty disk of the array, on one of them with \
--second. The nodes speak with each other through the disk alone. Each question is one that \
arrays are known to fail: whether a node that was put out can still write, whether what it had \
under way still lands, whether of two nodes that compare and write at once only one wins. The \
report names each command and what became of it; with --json it can go to the vendor as it is.\n\n\
Exits with 1 if the array is not fit, and with 4 if the test could not be run.";

/// `disk reservations`.
pub(super) const RESERVATIONS: &str = "\
Shows who has reserved a disk: for each disk below the device its name, what it can, who holds it, \
every registered key with whose it is, and which paths of this node answer. Reads only, and \
needs neither daemon nor configuration. Exits with 1 if a path does not answer.\n\n\
A volume or device with `reservation = \"scsi\"` needs a disk that knows write exclusive, \
registrants only, and keeps it over a loss of power. The name shown is what `identity` takes.";

/// `disk release`.
pub(super) const RELEASE: &str = "\
Ends this cluster's reservation of a disk for good, so that anything can write to it: before the \
disk is given to another use.\n\n\
The reservation of a volume or device stays when its task stops or its node dies, and the next \
owner takes it over: in the life of a cluster nothing ever needs to be released. This command \
takes the reservation from whichever node has it, which cuts that node off, and then lets go of \
it. Keys that are not this cluster's are never touched.";

/// `replay`.
pub(super) const REPLAY: &str = "\
Decides a recorded run again and compares.\n\n\
A daemon that was started with --record keeps what its core was told last, with the instants. This \
command tells the same to the same engine and prints what it decides: the same records as in \
`history`, at times since the core's start, and which stretch of the core's life that was. It \
touches nothing, needs no daemon and no configuration, and may read a record that is still being \
written.\n\n\
A record has four parts; the oldest is overwritten when all are full. Each later one begins with a \
checkpoint, the whole state of the engine: playing begins with the oldest part that is whole, and \
at each checkpoint on its way the engine must be the one that was written down.\n\n\
Exits with 0 if every turn decided what was recorded, and with 7 if one did not, which is named, \
or if a checkpoint is not what the run leads to: then another program made the record, or there is \
a mistake in this one. Exits with 6 if a part is damaged, after playing what can be played. A \
record tells names of nodes and tasks, commands and the reasons that objects gave; the cluster's \
secret is not in it.";
