//! A logical unit by the rules of SPC, and a node's paths to it, which fail as they are told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use standfast_sys::scsi::Identity;

use crate::model::NodeId;
use crate::storage::reservation::{Answer, Ask, ClusterTag, Fault, Held, Key, KeyEpoch, Unit};

/// A path: of which node, and which of its paths.
pub(super) type Nexus = (u8, usize);

/// The unit's own state.
#[derive(Clone, Debug)]
pub(super) struct Spc {
    pub(super) keys: BTreeMap<Nexus, u64>,
    /// The holder's path and the type.
    pub(super) holder: Option<(Nexus, u8)>,
    pub(super) generation: u32,
    pub(super) outlives_power: bool,
    pub(super) has_type: bool,
    pub(super) name: String,
    /// Tells a key once, on however many paths it is.
    pub(super) counts_once: bool,
    pub(super) resets: u32,
    /// Paths whose commands a preempt has aborted.
    pub(super) aborted: Vec<Nexus>,
}

impl Spc {
    fn registered(&self, by: Nexus, key: u64) -> Result<(), Fault> {
        match self.keys.get(&by) == Some(&key) {
            true => Ok(()),
            false => Err(Fault::Conflict),
        }
    }

    fn leave(&mut self, by: Nexus) {
        self.keys.remove(&by);
        if self.holder.is_some_and(|(holder, _)| holder == by) {
            self.holder = None;
        }
    }

    pub(super) fn register(&mut self, by: Nexus, key: u64) {
        self.generation = self.generation.wrapping_add(1);
        self.outlives_power = true;
        self.keys.insert(by, key);
    }

    pub(super) fn reserve(&mut self, by: Nexus, key: u64, kind: u8) -> Result<(), Fault> {
        self.registered(by, key)?;
        match self.holder {
            Some(held) if held != (by, kind) => Err(Fault::Conflict),
            Some(_) | None => {
                self.holder = Some((by, kind));
                Ok(())
            }
        }
    }

    /// PREEMPT AND ABORT, of a key that does not belong to all registrants.
    pub(super) fn preempt(&mut self, by: Nexus, own: u64, victim: u64) -> Result<(), Fault> {
        self.registered(by, own)?;
        let lost: Vec<Nexus> = self
            .keys
            .iter()
            .filter(|(_, key)| **key == victim)
            .map(|(path, _)| *path)
            .collect();
        if lost.is_empty() || victim == 0 {
            return Err(Fault::Conflict);
        }
        let held = self
            .holder
            .is_some_and(|(holder, _)| lost.contains(&holder));
        for path in lost {
            if !held || path != by {
                self.keys.remove(&path);
                self.aborted.push(path);
            }
        }
        if held {
            self.holder = Some((by, 5));
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// May this path write?
    pub(super) fn may_write(&self, by: Nexus) -> bool {
        match self.holder {
            None => true,
            Some((holder, 1)) => holder == by,
            Some(_) => self.keys.contains_key(&by),
        }
    }

    /// Nodes that may write.
    pub(super) fn writers(&self) -> Vec<u8> {
        let mut nodes: Vec<u8> = self.keys.keys().map(|(node, _)| *node).collect();
        nodes.dedup();
        nodes
    }

    fn carry_out(&mut self, by: Nexus, ask: &Ask) -> Result<Answer, Fault> {
        let done = |result: Result<(), Fault>| result.map(|()| Answer::Done);
        match *ask {
            Ask::Identity => Ok(Answer::Identities(vec![self.name.parse().unwrap()])),
            Ask::Keys => {
                let mut keys: Vec<u64> = self.keys.values().copied().collect();
                if self.counts_once {
                    keys.dedup();
                }
                let generation = self.generation;
                Ok(Answer::Keys { generation, keys })
            }
            Ask::Holder => Ok(Answer::Holder(self.holder.map(|(path, kind)| Held {
                key: if kind >= 7 { 0 } else { self.keys[&path] },
                is_ours_in_kind: kind == 5,
            }))),
            Ask::Capabilities => Ok(Answer::Capabilities {
                outlives_power: self.outlives_power,
                has_type: self.has_type,
            }),
            Ask::IsRegistered { key } => {
                let registered = self.registered(by, key).is_ok();
                self.generation = self.generation.wrapping_add(u32::from(registered));
                Ok(Answer::Registered(registered))
            }
            Ask::Register { key } => {
                self.register(by, key);
                Ok(Answer::Done)
            }
            Ask::Unregister { key } => done(self.registered(by, key).map(|()| {
                self.generation = self.generation.wrapping_add(1);
                self.leave(by);
            })),
            Ask::Reserve { key } => done(self.reserve(by, key, 5)),
            Ask::Release { key } => done(self.registered(by, key).map(|()| {
                if self.holder == Some((by, 5)) {
                    self.holder = None;
                }
            })),
            Ask::Preempt { own, victim } => {
                assert_ne!(own, victim, "the own key is preempted");
                done(self.preempt(by, own, victim))
            }
            Ask::Reset => {
                self.resets += 1;
                Ok(Answer::Done)
            }
        }
    }
}

/// What happens to one command, once.
pub(super) enum Trick {
    /// It is done, and the path fails before the answer comes.
    DoneButFailed,
    /// It is not done, and nothing comes.
    Hangs,
    /// It is not done, and the path fails.
    Fails,
    /// Before it is done, this happens to the unit.
    Before(Box<dyn FnOnce(&mut Spc) + Send>),
}

/// Is it one of these commands?
pub(super) type Matches = fn(&Ask) -> bool;

/// A node's way to the unit.
pub(super) struct FakeUnit {
    pub(super) spc: Arc<Mutex<Spc>>,
    pub(super) node: u8,
    /// Paths that fail at once.
    pub(super) dead: Vec<bool>,
    /// Paths that lead to a unit of another name.
    pub(super) astray: Vec<bool>,
    /// The first that matches is used up.
    tricks: Vec<(Matches, Trick)>,
    pub(super) rounds: usize,
    /// Every command that arrived, in the order of the rounds.
    pub(super) sent: Vec<Ask>,
    now: Instant,
}

impl FakeUnit {
    /// The unit, not yet used by anybody, with two paths of this node.
    pub(super) fn new(node: u8) -> FakeUnit {
        let spc = Spc {
            keys: BTreeMap::new(),
            holder: None,
            generation: 0,
            outlives_power: false,
            has_type: true,
            name: "naa.6001405aaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
            counts_once: false,
            resets: 0,
            aborted: Vec::new(),
        };
        FakeUnit::of(Arc::new(Mutex::new(spc)), node)
    }

    /// Another node's way to the same unit.
    pub(super) fn of(spc: Arc<Mutex<Spc>>, node: u8) -> FakeUnit {
        FakeUnit {
            spc,
            node,
            dead: vec![false; 2],
            astray: vec![false; 2],
            tricks: Vec::new(),
            rounds: 0,
            sent: Vec::new(),
            now: Instant::now(),
        }
    }

    pub(super) fn trick(&mut self, on: Matches, trick: Trick) {
        self.tricks.push((on, trick));
    }

    pub(super) fn count(&self, what: Matches) -> usize {
        self.sent.iter().filter(|ask| what(ask)).count()
    }

    fn one(&mut self, path: usize, ask: &Ask, patience: Duration) -> Result<Answer, Fault> {
        let failed = || Err(Fault::Path("the path failed".to_owned()));
        if self.dead[path] {
            return failed();
        }
        self.sent.push(ask.clone());
        if self.astray[path] && *ask == Ask::Identity {
            let other: Identity = "naa.6001405bbbbbbbbbbbbbbbbbbbbbbbbb".parse().unwrap();
            return Ok(Answer::Identities(vec![other]));
        }
        let trick = self.tricks.iter().position(|(on, _)| on(ask));
        let trick = trick.map(|at| self.tricks.remove(at).1);
        let mut spc = self.spc.lock();
        let by = (self.node, path);
        match trick {
            None => spc.carry_out(by, ask),
            Some(Trick::DoneButFailed) => {
                let _ = spc.carry_out(by, ask);
                failed()
            }
            Some(Trick::Hangs) => {
                self.now += patience;
                Err(Fault::Late("no answer".to_owned()))
            }
            Some(Trick::Fails) => failed(),
            Some(Trick::Before(happens)) => {
                happens(&mut spc);
                spc.carry_out(by, ask)
            }
        }
    }
}

impl Unit for FakeUnit {
    fn paths(&self) -> usize {
        self.dead.len()
    }

    fn path_name(&self, path: usize) -> String {
        format!("path {path}")
    }

    fn round(&mut self, asks: &[(usize, Ask)], patience: Duration) -> Vec<Result<Answer, Fault>> {
        self.rounds += 1;
        asks.iter()
            .map(|(path, ask)| self.one(*path, ask, patience))
            .collect()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pause(&mut self, length: Duration) {
        self.now += length;
    }
}

/// The cluster of these tests.
pub(super) fn cluster() -> ClusterTag {
    ClusterTag::new(&[7; 16])
}

/// The key of a node at an epoch of its task.
pub(super) fn key(node: u8, epoch: u32) -> Key {
    Key {
        cluster: cluster(),
        node: NodeId::new(node).unwrap(),
        epoch: KeyEpoch::new(epoch),
    }
}

/// The same as a number.
pub(super) fn number(node: u8, epoch: u32) -> u64 {
    key(node, epoch).number()
}
