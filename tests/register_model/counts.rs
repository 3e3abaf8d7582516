//! What happened in the runs.

use std::ops::AddAssign;

/// What a run did; added up to see that everything happens at all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) won: u64,
    pub(crate) lost: u64,
    pub(crate) lost_unclear: u64,
    pub(crate) gave_up: u64,
    pub(crate) gave_up_unclear: u64,
    pub(crate) learned: u64,
    /// Of an epoch that another node knows.
    pub(crate) heard_of: u64,
    pub(crate) proofs: u64,
    pub(crate) crashes: u64,
    pub(crate) write_errors: u64,
    pub(crate) torn: u64,
    pub(crate) damaged: u64,
    pub(crate) away: u64,
    pub(crate) mail: u64,
    pub(crate) by_all: u64,
    /// Won on three disks, and while one of these was gone for good.
    pub(crate) on_three: u64,
    pub(crate) on_two_left: u64,
    /// Of the record: changes done, refused, unclear, done after they were given up, sent twice.
    pub(crate) changed: u64,
    pub(crate) refused: u64,
    pub(crate) unclear: u64,
    pub(crate) late: u64,
    pub(crate) doubled: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.won += other.won;
        self.lost += other.lost;
        self.lost_unclear += other.lost_unclear;
        self.gave_up += other.gave_up;
        self.gave_up_unclear += other.gave_up_unclear;
        self.learned += other.learned;
        self.heard_of += other.heard_of;
        self.proofs += other.proofs;
        self.crashes += other.crashes;
        self.write_errors += other.write_errors;
        self.torn += other.torn;
        self.damaged += other.damaged;
        self.away += other.away;
        self.mail += other.mail;
        self.by_all += other.by_all;
        self.on_three += other.on_three;
        self.on_two_left += other.on_two_left;
        self.changed += other.changed;
        self.refused += other.refused;
        self.unclear += other.unclear;
        self.late += other.late;
        self.doubled += other.doubled;
    }
}

impl Counts {
    /// A test in which nothing happens finds nothing.
    pub(crate) fn assert_everything_happened(&self) {
        let all = [
            self.won,
            self.lost,
            self.lost_unclear,
            self.gave_up,
            self.gave_up_unclear,
            self.learned,
            self.heard_of,
            self.proofs,
            self.crashes,
            self.write_errors,
            self.torn,
            self.damaged,
            self.away,
            self.mail,
            self.by_all,
            self.on_three,
            self.on_two_left,
            self.changed,
            self.refused,
            self.unclear,
            self.late,
            self.doubled,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }
}
