//! The record: the newest image known of it, and what this node does to it.
//!
//! ```text
//! Idle --store--> StoreOrdered --poll--> Storing --Written, WriteFailed--> Idle
//!   '---change--> ChangeOrdered --poll--> Changing --Done--> Idle
//!                                            |--Miscompare--> Idle, in doubt
//!                                            '--Unclear-----> Idle, in doubt and open
//! in doubt --a read begun since then--> the image is known again
//! open --another image is known--> nothing can land any more
//!   '----the same image--> it is given another number, by a change that either side may win
//! ```
//!
//! A miscompare says that a change is not done any more. It was done before if something on the way
//! has sent it twice and lost the first answer, so the image decides here, too.
//!
//! An *open* change may land as long as the image is the one that it expects. While there is one
//! nothing else is stored or changed, for its value must not be overwritten and its ballot not be
//! forgotten. What an earlier life of this node has ordered counts as open at the start.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::NodeId;
use crate::time::Instant;

use super::{Ballot, Block, Change, Compared, Order, Place, Record, Value};

/// The record at some moment, and the value that it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) record: Record,
    pub(super) value: Arc<Value>,
    /// It was on the disk at or before this moment.
    since: Instant,
}

/// The one operation that may be under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Step {
    #[default]
    Idle,
    StoreOrdered(Block),
    Storing(Block),
    ChangeOrdered(Change, Arc<Value>),
    Changing(Change, Arc<Value>),
}

/// What a ballot on the record wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) ballot: Ballot,
    /// The image that the value was chosen on.
    pub(super) expected: Record,
    pub(super) value: Arc<Value>,
    /// It is this node's proposal, not a value that was found.
    pub(super) proposed: bool,
    /// The proposal may have been in force before this attempt.
    pub(super) tried: bool,
}

impl Attempt {
    /// Does this image show that the change was not done? It is the very next one after what the
    /// attempt expected, and of another ballot. Of a later image nobody knows what was before it.
    pub(super) fn was_refused(&self, image: &Record) -> bool {
        image.count == self.expected.count + 1 && image.bal != self.ballot
    }
}

/// What a read of the record says beside what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Begun too early to say anything.
    Old,
    /// The image that was known.
    Same,
    /// A newer one.
    Newer,
    /// An older one, or another of the same number.
    WentBack,
}

/// The record, and this node's part in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shared {
    image: Option<Image>,
    step: Step,
    /// A read begun since then must say what the image is.
    doubt: Option<Instant>,
    /// Changes of this node that expect this image may land.
    open: Option<Record>,
    /// When to do something about it.
    close_at: Instant,
    /// The value last stored, whole, and where.
    stored: Option<(Place, Arc<Value>)>,
    /// What the image names is not where it should be.
    pub(super) value_lost: bool,
    pub(super) attempt: Option<Attempt>,
}

impl Shared {
    /// The newest image known.
    pub(super) fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// May a ballot be begun?
    pub(super) fn is_free(&self) -> bool {
        let idle = matches!(self.step, Step::Idle);
        idle && self.image.is_some() && self.doubt.is_none() && self.open.is_none()
    }

    /// May a change of this node be done from now on?
    fn may_land(&self) -> bool {
        let ordered = matches!(self.step, Step::ChangeOrdered(..) | Step::Changing(..));
        ordered || self.open.is_some()
    }

    /// Is it known what has become of all changes of this node? The image is one of after them.
    pub(super) fn is_settled(&self) -> bool {
        !self.may_land() && self.doubt.is_none()
    }

    /// Must the image be read again, because the last change ended without success?
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// From when on a read must be begun to say what the image is.
    pub(super) fn wants_read_since(&self) -> Option<Instant> {
        match self.image {
            None => Some(Instant(0)),
            Some(_) => self.doubt,
        }
    }

    /// When to close what is open, if that can be done.
    pub(super) fn close_due(&self) -> Option<Instant> {
        let idle = matches!(self.step, Step::Idle) && self.doubt.is_none();
        (idle && self.open.is_some()).then_some(self.close_at)
    }

    /// Not before this moment.
    pub(super) fn close_later(&mut self, at: Instant) {
        self.close_at = at;
    }

    /// A read begun and ended then shows the record so.
    pub(super) fn sight(
        &mut self,
        (begun, ended): (Instant, Instant),
        record: Record,
        value: &Value,
    ) -> Sight {
        let sight = match &self.image {
            None => {
                // Whatever an earlier life of this node has ordered may still be under way.
                self.open = Some(record);
                Sight::Newer
            }
            Some(known) if record.count < known.record.count => {
                if begun >= known.since {
                    return Sight::WentBack;
                }
                return Sight::Old;
            }
            Some(known) if record == known.record => Sight::Same,
            Some(known) if record.count == known.record.count => return Sight::WentBack,
            Some(_) => Sight::Newer,
        };
        if sight == Sight::Newer {
            let value = Arc::new(value.clone());
            self.know(record, value, ended);
        }
        if self.doubt.is_some_and(|since| begun >= since) {
            self.doubt = None;
        }
        sight
    }

    fn know(&mut self, record: Record, value: Arc<Value>, since: Instant) {
        if self.open.is_some_and(|expected| expected != record) {
            self.open = None;
        }
        self.image = Some(Image {
            record,
            value,
            since,
        });
    }

    // ---- what is ordered ----

    /// Orders what the attempt needs: its value to be stored, unless it stands somewhere already,
    /// or else the change itself. Says whether it was the change.
    pub(super) fn begin(&mut self, me: NodeId, attempt: Attempt) -> bool {
        assert!(self.is_free(), "one thing at a time");
        let place = self.place_of(&attempt.value);
        let stands = place.is_some() || attempt.value.epoch == 0;
        if !stands {
            let writes = self.next_writes(me);
            let value = Value::clone(&attempt.value);
            self.stored = None;
            self.step = Step::StoreOrdered(Block::storing(writes, attempt.ballot, value));
        }
        self.attempt = Some(attempt);
        if stands {
            self.order_change(place);
        }
        stands
    }

    /// Where the value stands already, if anywhere.
    fn place_of(&self, value: &Arc<Value>) -> Option<Place> {
        let image = self.image.as_ref()?;
        if image.record.names(value) && !self.value_lost {
            return image.record.place;
        }
        let (place, stored) = self.stored.as_ref()?;
        let lost = self.value_lost && image.record.place == Some(*place);
        (stored == value && !lost).then_some(*place)
    }

    /// The number of the next write of the own block, which names its copy: the one that the image
    /// does not name. No image that is not known yet names the other one, for only this node's
    /// changes bring this node's copies in, and none of them is open.
    fn next_writes(&self, me: NodeId) -> u64 {
        let record = self
            .image
            .as_ref()
            .map_or(Record::default(), |image| image.record);
        let named = record.place.filter(|place| place.node == me);
        let copy = named.map_or(0, |place| 1 - place.writes % 2);
        2 * (record.count + 1) + copy
    }

    fn order_change(&mut self, place: Option<Place>) {
        let attempt = self.attempt.as_ref().expect("there is one");
        let expected = attempt.expected;
        let new = expected.accepting(attempt.ballot, place, &attempt.value);
        self.step = Step::ChangeOrdered(Change { expected, new }, attempt.value.clone());
    }

    /// Orders the change itself, now that the value is stored. Says whether there is a point in it.
    pub(super) fn go_on(&mut self) -> bool {
        let current = self.image.as_ref().map(|image| image.record);
        let (Some((place, stored)), Some(attempt)) = (&self.stored, &self.attempt) else {
            return false;
        };
        let place = *place;
        if current != Some(attempt.expected) || *stored != attempt.value || !self.is_free() {
            return false;
        }
        self.order_change(Some(place));
        true
    }

    /// Gives the image another number, so that nothing open is done any more.
    pub(super) fn close(&mut self) {
        let (Some(image), Some(expected)) = (&self.image, self.open) else {
            return;
        };
        let new = expected.renumbered();
        self.step = Step::ChangeOrdered(Change { expected, new }, image.value.clone());
    }

    /// Takes back an order that nobody has polled yet, and the attempt with it.
    pub(super) fn withdraw(&mut self) -> bool {
        match self.step {
            Step::StoreOrdered(_) | Step::ChangeOrdered(..) => {
                self.step = Step::Idle;
                self.attempt = None;
                true
            }
            Step::Idle | Step::Storing(_) | Step::Changing(..) => false,
        }
    }

    /// The operation to be done now.
    pub(super) fn poll(&mut self) -> Option<Order> {
        match std::mem::take(&mut self.step) {
            Step::StoreOrdered(block) => {
                self.step = Step::Storing(block.clone());
                Some(Order::Write(block))
            }
            Step::ChangeOrdered(change, value) => {
                self.step = Step::Changing(change, value);
                Some(Order::CompareAndWrite(change))
            }
            other @ (Step::Idle | Step::Storing(_) | Step::Changing(..)) => {
                self.step = other;
                None
            }
        }
    }

    // ---- how it ended ----

    /// The store under way has ended; false if there is none. Failed or not, it is not under way
    /// any more, and as long as no image names it nobody minds what stands there.
    pub(super) fn store_ended(&mut self, me: NodeId, whole: bool) -> bool {
        match std::mem::take(&mut self.step) {
            Step::Storing(Block { writes, value, .. }) => {
                let place = Place { node: me, writes };
                self.stored = whole.then(|| (place, Arc::new(value)));
                true
            }
            other @ (Step::Idle
            | Step::StoreOrdered(_)
            | Step::ChangeOrdered(..)
            | Step::Changing(..)) => {
                self.step = other;
                false
            }
        }
    }

    /// The change under way has ended so. Returns it; nothing if there is none.
    pub(super) fn compared(&mut self, at: Instant, outcome: Compared) -> Option<Change> {
        let (change, value) = match std::mem::take(&mut self.step) {
            Step::Changing(change, value) => (change, value),
            other @ (Step::Idle
            | Step::StoreOrdered(_)
            | Step::Storing(_)
            | Step::ChangeOrdered(..)) => {
                self.step = other;
                return None;
            }
        };
        match outcome {
            Compared::Done => {
                let known = self.image.as_ref().map_or(0, |image| image.record.count);
                if change.new.count > known {
                    self.value_lost &= change.new.place == change.expected.place;
                    self.know(change.new, value, at);
                }
            }
            Compared::Miscompare => {
                // Another image was there: what expects this one is done never more.
                self.open = self.open.filter(|expected| *expected != change.expected);
                self.doubt = Some(at);
            }
            Compared::Unclear => {
                // Unless a read has shown already that the image is another one.
                let current = self.image.as_ref().map(|image| image.record);
                self.open = Some(change.expected).filter(|expected| current == Some(*expected));
                self.doubt = Some(at);
            }
        }
        Some(change)
    }
}
