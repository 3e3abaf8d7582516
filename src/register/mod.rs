//! The register: one small record that all nodes agree on, changed by compare-and-swap only.
//!
//! A pure state machine: it orders reads and writes, is told how they ended, and says what it
//! knows. One lives in each node, in the thread that decides. The medium is one shared disk, or two
//! of three, with a block per node that only this node writes ([Disk Paxos], Gafni and Lamport
//! 2003) or, where the one disk can, with one sector that changes by compare-and-write, and all
//! nodes together while that medium is away. The rule for values is that of CASPaxos (Rystsov
//! 2018): a ballot proposes either a successor of the newest value it found, or that value again.
//!
//! ```text
//!          phase 1                                      phase 2
//!   ───┬─────────────┬───────────────────────┬─────────────┬─────────────────────┬──────▶
//!      write mbal=b  read all: anyone > b?   write bal=b,  read all: anyone > b?
//!                    no: cur = the value     value = cur   no: decided when this
//!                    of the highest bal      or successor  read has ended
//! ```
//!
//! Why it is safe. Given: only its node writes a block, one write at a time, and it lands before
//! it is reported as ended; a read shows each block as it was at some moment between its beginning
//! and its end.
//!
//! 1. *A ballot b is chosen* when its value is on the disk and each other block has, at some
//!    moment after that, no higher `mbal`. A higher ballot writes `mbal` before its phase-1 read
//!    begins, so this read begins after b's value landed, and finds it or one of a still higher
//!    ballot.
//! 2. So each value accepted in a ballot above b *descends* from b's: by induction it is a
//!    successor or a copy of a value that is b's or descends from it. Chosen values form one
//!    chain; epochs rise by one along it, so an epoch has one decided value.
//! 3. *Won*: the phase-2 read begins after the value landed and shows nobody higher: 1 holds.
//!    After a read that does show somebody the outcome is open; a later ballot finds the nonce or
//!    not, and is itself finished before anything is reported: a value merely found may yet be
//!    outbid.
//! 4. *Learned by reading*: the first read shows the value on the disk; the second begins after
//!    the first has ended and shows nobody higher: 1 holds again. One read would not do: its look
//!    at the other blocks may have been before the value landed.
//! 5. *Proof*: had a successor been chosen before the read began, the read would show it or a
//!    descendant, by 2, and not the known value.
//! 6. *Own ballots never fall*, over restarts too: nothing is written before the own block was
//!    read, nor after a failed write before a read has shown what became of it.
//!
//! # Without the disk
//!
//! Each node is an acceptor of its own besides: it has a promise, and a value accepted last. Two
//! kinds of quorum: **the disk and the node that asks**, and **all configured nodes**. Any two of
//! them have a member in common: the disk, or the node that asked by the disk, which is among all.
//!
//! ```text
//!   all nodes --Prepare b--> each keeps the promise in its file, tells what it accepted last
//!             --Accept b---> each keeps it in its file --Accepted--> decided --Decided--> all
//! ```
//!
//! 7. *The asker's own voice in a disk ballot* costs nothing: it promises and accepts in memory, at
//!    the moment the write is ordered, and the own block is where that voice is written down. The
//!    looks of a disk ballot take in the own voice like one more block, so they see what all nodes
//!    have accepted, and a higher promise that was given in between.
//! 8. *What others are told is in the file first.* After a restart the voice is the higher of own
//!    block and file, and silent until both were read.
//! 9. So 1 and 2 hold for mixed ballots: a higher ballot by all nodes has the promise of the lower
//!    one's asker, given after that had accepted (then it finds the value) or before (then the
//!    lower ballot fails on its own promise). A higher ballot by the disk is begun by a node that
//!    accepted the lower one, if all did, and finds it in itself.
//! 10. *Learned by reading* needs the value on the disk itself: what only this node has accepted no
//!     read shows to be decided. *Learned by being told* comes from a node that knows.
//! 11. *Proof*: a successor decided by all nodes was accepted by this one before, and 5 takes its
//!     voice in.
//! 12. Whoever finds the disk behind its own voice brings it there by a ballot, with a jitter.
//!
//! # By compare-and-write
//!
//! Where the disk can, its voice is one sector, the *image*: in which ballot it has accepted which
//! value, and in whose block that value stands ([`Record`]). It changes by SCSI COMPARE AND WRITE
//! only (SBC-4 5.3), so one command is the disk's promise and its acceptance at once.
//!
//! ```text
//!   ──┬─────────────────────────┬────────────────────────────────────────────┬──────▶
//!     hold b; value of the      COMPARE AND WRITE: if the image is E, then    done, and nothing
//!     higher bal of image E     {E's number + 1, b, place, hash of value}     above b promised:
//!     and own voice, or its                                                   own voice accepts,
//!     successor, to own block                                                 decided
//! ```
//!
//! Two operations instead of four, and none of them a read: whether E is still the image, the
//! command finds out itself. Acceptors are the disk and each node; quorums are **the disk and any
//! one node**, and **all nodes**; any two have a member in common.
//!
//! 13. *An image never repeats*, for its number rises by one. A command is done at most once, and
//!     only while its E is the image: late, doubled or of an earlier life, it does not matter when
//!     it comes, only whether. A refusal of a command that was sent once is final.
//! 14. *Ballot b's first quorum is the disk and the asker.* The disk promises and accepts in one
//!     moment, and there its last accepted ballot is E's, which the value was chosen by. The asker
//!     *holds* b from the choice on: it promises and accepts nothing below, until an image of after
//!     the command's end shows that it was not done and never will be, or it accepts what is there.
//!     So 2 holds: a value accepted in b descends from every value chosen below b.
//! 15. *The asker accepts after the disk*, not before: until the disk has promised b somebody
//!     else's lower ballot may be chosen there, and a voice for b would outbid it. If the asker
//!     promises more while the command is under way, it does not accept b; others still may.
//! 16. *Whoever reads the image accepts it*, unless it has promised more; then the disk and this
//!     node have accepted the same ballot, which is a quorum: the value is decided, and **one read
//!     teaches it**. Nothing needs to be written: after a restart a node is silent until it has
//!     read the disk again, which shows the same ballot or a higher one; and a promise that
//!     forbids to accept that is in the file, with what was accepted before it.
//! 17. *The hold is lost in a crash* and the command may be done yet. So a node begins each life by
//!     giving the image another number and nothing else ([`Order::CompareAndWrite`] with the same
//!     ballot and value), or sees that somebody has changed it: no older command can be done any
//!     more, and of one that was done the image has the ballot, or a higher one. Before it has seen
//!     that image it answers nobody, stores nothing and begins no ballot.
//! 18. *After an unclear outcome* a read tells: the new image is there, or another, or still E. In
//!     the last case the command may be done yet, and E is given another number first, as in 17.
//! 19. *What an image names stays.* A value is stored in that copy of the own block which the image
//!     does not name, while no command of this node can be done; only such a command could bring
//!     the other copy into an image that is not known yet. Should a late plain write of an earlier
//!     life destroy it all the same, the hash tells, nobody takes it for the value, and whoever
//!     knows the value stores it anew.
//! 20. *Proof*: a successor chosen before the read began was accepted by the disk, and the image
//!     shows it or a descendant, or by all nodes, and so by this one.
//!
//! Points 7, 8, 11 and 12 hold as they are; a network ballot has the promise of every node, so of
//! the one that has accepted a lower disk ballot with the disk (14, 16) or will not any more.
//!
//! # On three disks
//!
//! Two of them decide; what follows holds for one disk as well, which is its own majority. Every
//! disk has a block for each node, and to each the rules for a block apply by itself: one write at
//! a time, never backwards. Only one disk alone can be changed by compare-and-write.
//!
//! ```text
//!   write own block to all --on two--> read all --two, begun since then--> the phase has ended
//!         '-- the third: when the write before it has ended, then at once the newest
//! ```
//!
//! 21. *Ballot b is chosen* when its value is on two disks and two disks were read after that, each
//!     as a whole, without a higher `mbal`. Let c be higher, and miss b where b was written and c
//!     has read: it has looked there before the value landed, and `mbal` = c was on two disks by
//!     then. One of these b's own read looks at, later, and finds c. So 1 holds, and all that rests
//!     on it.
//! 22. *No disk has the newest block of a node.* A life that has ended may have left a higher
//!     `mbal` on one disk, with less accepted than the two others have by now. So the highest
//!     `mbal` and the value of the highest `bal` are each taken from where they are, of the own
//!     blocks too; and nothing is written to a disk that would take back either.
//! 23. *A number used twice* harms nobody: a life that cannot see a ballot of an earlier one has
//!     found it on no two disks, so nothing was accepted in it.
//! 24. *Learned by reading*: the value was seen on two disks, and two were read after that, begun
//!     when all reads that had shown it were over. What stands on one disk may yet be outbid.
//! 25. *Proof* is dated by the earlier of the latest reads of two disks, *won* by the end of the
//!     last read that counts. So a proof dated later rests on two disks read after the value was on
//!     two: who is put out has no proof of after that, as with one disk. A node that reads one disk
//!     only proves and changes nothing by it. Heartbeats through a disk prove what they prove on
//!     any link, whatever becomes of the register there.
//! 26. *A disk that hangs* takes part when it answers again. What lands there late was ordered
//!     after what stands there, and is what this node has said at some time: it counts for its own
//!     ballot, if anybody asks for that yet, and for nothing else. A write that has failed and that
//!     a read has not found is ordered again, for the two others may not both be there.
//! 27. *A disk that has lost its content is no empty voice.* The caller reports reads of a disk as
//!     failed unless it is the one that was formatted for this place in this register. A disk that
//!     shows less than it has shown in this life, or an own block that was not written, is out for
//!     this life. A copy of one disk restored unseen while no node looks is beyond what is
//!     promised, as it is with one disk.
//! 28. *With the quorum of all nodes* two disks have in common what one has: the node that asks.
//!     After a restart its voice is the highest of its file and of its own blocks on two disks, and
//!     it is silent until these were read. What an earlier life has left on the third disk alone
//!     is not its voice: it was accepted by nobody else and is read like any other block.
//! 29. *Two disks gone* are the only disk gone. With one gone, a value that stands on one of the
//!     others only is brought to both by a ballot, as in 12.
//!
//! # Learned by one read
//!
//! 30. *A node that knows the decided value of epoch e says so* in its frames, and a read begun
//!     after that was heard shows, in its highest accepted ballot, a value of epoch e: that is
//!     the one. For it was decided in some ballot b before the read began. If by the disk, the
//!     value of b, or of a higher ballot of the same node, stands where the read looks; if by
//!     all nodes, this one has accepted it, and its voice is taken in once it is recovered. So
//!     the highest ballot found is b or above, its value b's or descends from it (2), and of
//!     those only b's has epoch e. What others have begun beside it does not matter: without
//!     this, somebody who tries again and again could keep the others from learning what he
//!     cannot change.
//!
//! What can go wrong is in [`Trouble`]. What no protocol on plain writes survives is a write that
//! lands after its node has read the block again (an earlier life's, or one the array kept): the
//! caller must make sure that an earlier daemon has exited, which it cannot while its I/O is under
//! way. The register checks its own block in every read and stops for good when it finds something
//! else there.
//!
//! [Disk Paxos]: https://www.microsoft.com/en-us/research/publication/disk-paxos/
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acceptor;
mod api;
mod disks;
mod message;
mod own;
mod paxos;
mod record;
mod scan;
mod shared;
mod value;

#[cfg(test)]
mod tests;

/// Most disks that a register is on; the other number is one.
pub const DISKS_MAX: usize = 3;

pub use api::{BlockSeen, Event, Memory, News, Order, Refused, Seen, Trouble};
pub use message::{MESSAGE_LEN_MAX, Message, MessageError};
pub use paxos::{MAIL_MAX, Register};
pub use record::{Change, Compared, Place, Record, RecordSeen};
pub use value::{Ballot, Block, VALUE_MAX, Value};
