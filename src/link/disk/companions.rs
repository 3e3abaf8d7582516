//! The register's disks of this node: which of them belong together.
//!
//! ```text
//! a header: another count or position --> refused
//! no two with the same roster yet     --> waits
//! two with the same roster            --> that one counts until this process ends
//! another roster than that            --> refused
//! ```
//!
//! One disk alone of three may be one that was replaced and has missed everything since, so it is
//! not used before another names the same three. Shared by the disks' threads; each holds it for a
//! moment, when it opens its disk.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::register::DISKS_MAX;
use crate::storage::area::{Header, Roster};

/// The disks of one node's register.
#[derive(Clone)]
pub struct Companions {
    count: usize,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// What each has shown last.
    shown: [Option<Roster>; DISKS_MAX],
    /// What two have shown.
    settled: Option<Roster>,
}

/// Why a disk is not used. Positions count from 0. Each comes with [`Stranger::help`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// Of another number of disks.
    #[error("formatted as one of {found} register disks, the configuration has {configured}")]
    Count {
        /// On the disk.
        found: usize,
        /// In the configuration.
        configured: usize,
    },
    /// The devices are swapped.
    #[error(
        "this is disk {} of the register, the link is that of disk {}",
        found + 1,
        configured + 1
    )]
    Position {
        /// On the disk.
        found: usize,
        /// In the configuration.
        configured: usize,
    },
    /// No other has answered.
    #[error("no other disk of the register was read yet, and one of three does not count alone")]
    Alone,
    /// Others have answered, each something else.
    #[error("no two disks of the register name the same three")]
    Divided,
    /// Another has its place.
    #[error("the two other disks of the register name another one in its place")]
    Replaced,
    /// It is one of them, but does not name the same third.
    #[error("it names another disk of the register than the two others do")]
    Disagrees,
    /// Of another format.
    #[error("it belongs to another register than the two other disks")]
    Foreign,
}

impl Stranger {
    /// What to do about it.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Stranger::Count { .. } => {
                "stop Standfast on all nodes and run 'standfast disk format' with the devices of \
                 all links of kind disk"
            }
            Stranger::Position { .. } => {
                "correct the devices in the configuration: every disk stands in its own place, on \
                 all nodes"
            }
            Stranger::Alone => "it is used as soon as another one answers; check the other two",
            Stranger::Divided => {
                "a replacement was interrupted, or a replaced disk is back: stop Standfast on all \
                 nodes and run 'standfast disk format --replace' once more"
            }
            Stranger::Replaced => {
                "if it was replaced, name the new disk in the configuration of this node, or make \
                 this one new: stop Standfast on all nodes and run 'standfast disk format \
                 --replace'. If it is the new one, restart Standfast here"
            }
            Stranger::Disagrees => {
                "a disk was replaced while this node ran: restart Standfast here. If that does not \
                 help, the replacement was interrupted: stop Standfast on all nodes and run \
                 'standfast disk format --replace' once more"
            }
            Stranger::Foreign => {
                "check the device in the configuration; 'standfast disk show' tells what it is"
            }
        }
    }
}

impl Companions {
    /// For so many disks.
    ///
    /// # Panics
    ///
    /// If there are neither one nor three.
    #[must_use]
    pub fn new(count: usize) -> Companions {
        assert!(count == 1 || count == DISKS_MAX, "one disk, or three");
        let known = Arc::default();
        Companions { count, known }
    }

    /// May the disk at this position of the configuration be used?
    ///
    /// # Errors
    ///
    /// [`Stranger`]; after [`Stranger::Alone`] and [`Stranger::Divided`] ask again later.
    pub fn admit(&self, position: usize, header: &Header) -> Result<(), Stranger> {
        let (found, configured) = (header.disks(), self.count);
        if found != configured {
            return Err(Stranger::Count { found, configured });
        }
        let Some(roster) = header.roster else {
            return Ok(());
        };
        let (found, configured) = (header.position(), position);
        if found != configured {
            return Err(Stranger::Position { found, configured });
        }
        let mut known = self.known.lock();
        known.shown[position] = Some(roster);
        let same = known.shown.iter().filter(|shown| **shown == Some(roster));
        if same.count() > 1 {
            known.settled.get_or_insert(roster);
        }
        match known.settled {
            Some(settled) if settled == roster => Ok(()),
            Some(settled) if settled.position(&header.nonce).is_some() => Err(Stranger::Disagrees),
            Some(settled) if settled.is_of_one_format(&roster) => Err(Stranger::Replaced),
            Some(_) => Err(Stranger::Foreign),
            None if known.shown.iter().flatten().count() > 1 => Err(Stranger::Divided),
            None => Err(Stranger::Alone),
        }
    }
}

impl PartialEq for Companions {
    fn eq(&self, other: &Companions) -> bool {
        Arc::ptr_eq(&self.known, &other.known)
    }
}

impl Eq for Companions {}

impl fmt::Debug for Companions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Companions({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::area::{Geometry, Medium};

    fn header(roster: Option<[u8; 3]>, own: u8) -> Header {
        Header {
            cluster: [1; 16],
            nonce: [own; 16],
            block_size: 512,
            geometry: Geometry::new(2).unwrap(),
            medium: Medium::Paxos,
            roster: roster.map(|all| Roster::new(all.map(|one| [one; 16])).unwrap()),
        }
    }

    #[test]
    fn one_of_three_waits_for_another_and_then_both_count() {
        let disks = Companions::new(3);
        let [a, b, c] = [7, 8, 9].map(|own| header(Some([7, 8, 9]), own));
        assert_eq!(disks.admit(1, &b), Err(Stranger::Alone));
        assert_eq!(disks.admit(1, &b), Err(Stranger::Alone));
        assert_eq!(disks.admit(2, &c), Ok(()));
        assert_eq!(disks.admit(1, &b), Ok(()));
        assert_eq!(disks.admit(0, &a), Ok(()));
    }

    #[test]
    fn a_replaced_disk_never_counts_however_early_it_is_there() {
        let disks = Companions::new(3);
        let new = |own| header(Some([7, 8, 10]), own);
        let old = header(Some([7, 8, 9]), 9);
        assert_eq!(disks.admit(2, &old), Err(Stranger::Alone));
        assert_eq!(disks.admit(0, &new(7)), Err(Stranger::Divided));
        assert_eq!(disks.admit(1, &new(8)), Ok(()));
        assert_eq!(disks.admit(2, &old), Err(Stranger::Replaced));
        assert_eq!(disks.admit(0, &new(7)), Ok(()));
        assert_eq!(disks.admit(2, &new(10)), Ok(()));
    }

    #[test]
    fn a_node_that_ran_through_a_replacement_uses_no_disk_of_the_new_register() {
        let disks = Companions::new(3);
        let [a, b, c] = [7, 8, 9].map(|own| header(Some([7, 8, 9]), own));
        for (position, disk) in [(0, &a), (1, &b), (2, &c), (0, &a)] {
            let _ = disks.admit(position, disk);
        }
        for (position, own) in [(0, 7), (1, 8)] {
            let changed = header(Some([7, 8, 10]), own);
            assert_eq!(disks.admit(position, &changed), Err(Stranger::Disagrees));
        }
        let new = header(Some([7, 8, 10]), 10);
        assert_eq!(disks.admit(2, &new), Err(Stranger::Replaced));
    }

    #[test]
    fn what_two_have_said_is_not_outvoted_later() {
        let disks = Companions::new(3);
        assert_eq!(
            disks.admit(0, &header(Some([7, 8, 9]), 7)),
            Err(Stranger::Alone)
        );
        assert_eq!(disks.admit(1, &header(Some([7, 8, 9]), 8)), Ok(()));
        for (position, own) in [(0, 1), (1, 2), (2, 3)] {
            let other = header(Some([1, 2, 3]), own);
            assert_eq!(disks.admit(position, &other), Err(Stranger::Foreign));
        }
    }

    #[test]
    fn a_disk_of_another_place_or_number_is_named() {
        let three = Companions::new(3);
        let c = header(Some([7, 8, 9]), 9);
        let wrong = three.admit(0, &c).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "this is disk 3 of the register, the link is that of disk 1"
        );
        let wrong = three.admit(0, &header(None, 9)).unwrap_err();
        assert_eq!(
            wrong,
            Stranger::Count {
                found: 1,
                configured: 3
            }
        );
        let one = Companions::new(1);
        assert_eq!(one.admit(0, &header(None, 9)), Ok(()));
        let wrong = one.admit(0, &c).unwrap_err();
        assert_eq!(
            wrong,
            Stranger::Count {
                found: 3,
                configured: 1
            }
        );
    }
}
