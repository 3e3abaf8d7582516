//! One thread for each node that can be switched off: does what the core orders, again and again
//! until it is done or not wanted any more, answers people, and tries the devices before the day of
//! need.
//!
//! ```text
//! order    off, verified -> told; else told, and again after a pause that doubles
//! ask      a person's try, or his order; told to him
//! test     at the start and as often as configured; a change is told to the history
//! ```
//! An order goes before everything: what is under way for a test is called off for it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::EventFd;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::ladder::{Devices, Ladder, NotOff, Tried, hopeless};
use crate::config::Config;
use crate::engine::{Class, PowerOutcome};
use crate::model::NodeId;
use crate::object::{Cancel, Urgency};

/// Pause after a first failure, and the longest.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Questions of people that wait for one node; more are refused.
const ASKS_MAX: usize = 8;

/// What the desk has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To the core that gave the order.
    Outcome {
        /// The core's connection.
        connection: u64,
        /// Which node.
        node: NodeId,
        /// As in the order.
        epoch: u64,
        /// What came of it.
        outcome: PowerOutcome,
    },
    /// To the history.
    Note {
        /// About which node.
        node: NodeId,
        /// How bad it is.
        class: Class,
        /// The sentence.
        text: String,
    },
}

/// How the devices of one node stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FenceStatus {
    /// Which node.
    pub node: NodeId,
    /// Each device.
    pub devices: Vec<DeviceStatus>,
    /// Milliseconds since they were last tried; none if they were not yet.
    pub tried_ms: Option<f64>,
    /// Why it could not be switched off; none if it could.
    pub trouble: Option<String>,
    /// It is being switched off.
    pub at_work: bool,
}

/// One device in a [`FenceStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its level.
    pub level: u8,
    /// What is wrong with it, as far as is known.
    pub trouble: Option<String>,
}

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// To try the devices.
    Test,
    /// To switch the node off.
    Off,
}

/// An answer to a person: what was done, or why not.
pub type Reply = Result<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    connection: u64,
    epoch: u64,
}

#[derive(Default)]
struct State {
    order: Option<Order>,
    asks: VecDeque<(Wish, Sender<Reply>)>,
    tried: Vec<Tried>,
    tried_at: Option<Instant>,
    /// What is under way, if that may be called off.
    under_way: Option<Arc<Cancel>>,
}

struct Post {
    node: NodeId,
    name: String,
    ladder: Ladder,
    state: Mutex<State>,
    bell: Condvar,
    said: Sender<Said>,
    runner: Arc<EventFd>,
}

/// All threads.
pub struct Desk {
    posts: BTreeMap<NodeId, Arc<Post>>,
}

impl Desk {
    /// Starts a thread for each node but `me` that has devices. What they say can be received, and
    /// `runner` is rung for it.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub fn open(
        config: &Config,
        me: NodeId,
        runner: &Arc<EventFd>,
    ) -> io::Result<(Desk, Receiver<Said>)> {
        // What is said waits for pauses of a second and more, so it stays short.
        let (said, heard) = unbounded();
        let devices = Devices::of(config);
        let mut posts = BTreeMap::new();
        for node in config.nodes().iter().filter(|node| node.id != me) {
            let Some(ladder) = devices.ladder(node) else {
                continue;
            };
            let post = Arc::new(Post {
                node: node.id,
                name: node.name.clone(),
                ladder,
                state: Mutex::default(),
                bell: Condvar::new(),
                said: said.clone(),
                runner: Arc::clone(runner),
            });
            let own = Arc::clone(&post);
            thread::Builder::new()
                .name(format!("power-{}", node.id))
                .spawn(move || own.work())?;
            posts.insert(node.id, post);
        }
        Ok((Desk { posts }, heard))
    }

    /// The core wants a node off, or not any more.
    pub fn order(&self, connection: u64, node: NodeId, epoch: Option<u64>) {
        if let Some(post) = self.posts.get(&node) {
            post.order(epoch.map(|epoch| Order { connection, epoch }));
        }
    }

    /// A new core has given no order yet.
    pub fn forget_orders(&self) {
        for post in self.posts.values() {
            post.order(None);
        }
    }

    /// A person asks; he is answered when it is done, which may take as long as the agents may.
    ///
    /// # Errors
    ///
    /// Why it is not even tried.
    pub fn ask(&self, node: NodeId, wish: Wish, reply: Sender<Reply>) -> Result<(), String> {
        let Some(post) = self.posts.get(&node) else {
            return Err("this node has no device that could switch it off".to_owned());
        };
        let mut state = post.state.lock();
        if state.order.is_some() {
            return Err(format!("{} is being switched off already", post.name));
        }
        if state.asks.len() >= ASKS_MAX {
            return Err("too many others ask already".to_owned());
        }
        state.asks.push_back((wish, reply));
        post.bell.notify_all();
        Ok(())
    }

    /// How all devices stand.
    #[must_use]
    pub fn status(&self) -> Vec<FenceStatus> {
        self.posts.values().map(|post| post.status()).collect()
    }
}

/// What a thread does next.
enum Task {
    Order(Order),
    Ask(Wish, Sender<Reply>),
    Test,
}

impl Post {
    fn order(&self, order: Option<Order>) {
        let mut state = self.state.lock();
        if state.order == order {
            return;
        }
        // Also a test: an order does not wait for it.
        if let Some(cancel) = state.under_way.take() {
            cancel.raise(Urgency::Forced);
        }
        state.order = order;
        self.bell.notify_all();
    }

    fn status(&self) -> FenceStatus {
        let state = self.state.lock();
        let device = |tried: &Tried| DeviceStatus {
            name: tried.device.clone(),
            level: tried.level,
            trouble: tried.trouble.clone(),
        };
        FenceStatus {
            node: self.node,
            devices: state.tried.iter().map(device).collect(),
            tried_ms: state.tried_at.map(|at| at.elapsed().as_secs_f64() * 1e3),
            trouble: hopeless(&state.tried),
            at_work: state.order.is_some(),
        }
    }

    fn work(&self) {
        let mut pause = AGAIN_MIN;
        let mut again_at = None;
        loop {
            let (task, cancel) = self.next(&mut again_at);
            match task {
                Task::Order(order) => match self.obey(order, &cancel) {
                    true => (pause, again_at) = (AGAIN_MIN, None),
                    false => {
                        again_at = Some((order, Instant::now() + pause));
                        pause = (pause * 2).min(AGAIN_MAX);
                    }
                },
                Task::Ask(wish, reply) => {
                    // Whoever has gone away is not told.
                    let _ = reply.send(self.answer(wish, &cancel));
                }
                Task::Test => self.test(&cancel),
            }
            self.state.lock().under_way = None;
        }
    }

    /// Waits for something to do. An order that has failed waits for its pause, unless another one
    /// comes.
    fn next(&self, again_at: &mut Option<(Order, Instant)>) -> (Task, Arc<Cancel>) {
        let mut state = self.state.lock();
        loop {
            let (task, until) = self.due(&mut state, again_at);
            if let Some(task) = task
                && let Ok(cancel) = Cancel::new()
            {
                let cancel = Arc::new(cancel);
                // A person's order is carried out, whatever comes.
                let is_wish = matches!(task, Task::Ask(Wish::Off, _));
                state.under_way = (!is_wish).then(|| Arc::clone(&cancel));
                return (task, cancel);
            }
            self.bell.wait_until(&mut state, until);
        }
    }

    fn due(
        &self,
        state: &mut MutexGuard<'_, State>,
        again_at: &mut Option<(Order, Instant)>,
    ) -> (Option<Task>, Instant) {
        let now = Instant::now();
        if let Some(order) = state.order {
            let until = again_at.filter(|(failed, _)| *failed == order);
            let until = until.map_or(now, |(_, at)| at);
            return (
                (until <= now).then_some(Task::Order(order)),
                until.max(now + AGAIN_MIN / 10),
            );
        }
        *again_at = None;
        if let Some((wish, reply)) = state.asks.pop_front() {
            return (Some(Task::Ask(wish, reply)), now);
        }
        let test_at = state
            .tried_at
            .map_or(now, |at| at + self.ladder.test_every());
        ((test_at <= now).then_some(Task::Test), test_at)
    }

    /// Carries an order out once; true if nothing is left to be done.
    fn obey(&self, order: Order, cancel: &Cancel) -> bool {
        let Order { connection, epoch } = order;
        let (outcome, level) = match self.ladder.switch_off(cancel) {
            Ok(level) => {
                let by = self.ladder.names(level);
                (PowerOutcome::Off { by }, Some(level))
            }
            Err(NotOff::Failed(reason)) => (PowerOutcome::Failed { reason }, None),
            Err(NotOff::CalledOff) => return true,
        };
        if level.is_some() {
            let mut state = self.state.lock();
            if state.order == Some(order) {
                state.order = None;
                // From here on it is about switching on, which nobody calls off.
                state.under_way = None;
            }
        }
        self.say(Said::Outcome {
            connection,
            node: self.node,
            epoch,
            outcome,
        });
        if let Some(level) = level {
            self.switch_on(level, cancel);
        }
        level.is_some()
    }

    fn switch_on(&self, level: u8, cancel: &Cancel) {
        let name = &self.name;
        match self.ladder.switch_on(level, cancel) {
            None | Some(Err(NotOff::CalledOff)) => {}
            Some(Ok(())) => self.note(Class::Notice, format!("{name} was switched on again")),
            Some(Err(NotOff::Failed(why))) => {
                let text = format!("{name} was switched off, but not on again: {why}");
                self.note(Class::Warning, text);
            }
        }
    }

    fn answer(&self, wish: Wish, cancel: &Cancel) -> Reply {
        let name = &self.name;
        match wish {
            Wish::Test => {
                let called_off = || format!("{name} is to be switched off: the test gave way");
                let tried = self.ladder.test(cancel).ok_or_else(called_off)?;
                let words = |tried: &Tried| {
                    let trouble = tried.trouble.as_deref().unwrap_or("good");
                    format!("level {} {}: {trouble}", tried.level, tried.device)
                };
                let lines: Vec<String> = tried.iter().map(words).collect();
                let hopeless = hopeless(&tried).is_some();
                self.keep(tried);
                if hopeless {
                    return Err(format!("cannot fence {name}: {}", lines.join("; ")));
                }
                Ok(format!("{name} can be switched off: {}", lines.join("; ")))
            }
            Wish::Off => match self.ladder.switch_off(cancel) {
                Ok(level) => {
                    self.switch_on(level, cancel);
                    Ok(format!("{name} is off, says {}", self.ladder.names(level)))
                }
                Err(NotOff::Failed(why)) => Err(format!("{name} was not switched off: {why}")),
                Err(NotOff::CalledOff) => Err(format!("{name} is being switched off already")),
            },
        }
    }

    fn test(&self, cancel: &Cancel) {
        if let Some(tried) = self.ladder.test(cancel) {
            self.keep(tried);
        }
    }

    /// Keeps what a test has found, and tells what is new in it.
    fn keep(&self, tried: Vec<Tried>) {
        let name = &self.name;
        let before = {
            let mut state = self.state.lock();
            state.tried_at = Some(Instant::now());
            std::mem::replace(&mut state.tried, tried.clone())
        };
        match (hopeless(&before), hopeless(&tried)) {
            (old, Some(why)) if old.as_ref() != Some(&why) => {
                return self.note(Class::Critical, format!("cannot fence {name}: {why}"));
            }
            (Some(_), None) => self.note(Class::Notice, format!("{name} can be fenced again")),
            (_, _) => {}
        }
        if hopeless(&tried).is_some() {
            return;
        }
        for device in &tried {
            let known = before.iter().any(|old| old == device);
            if let Some(trouble) = device.trouble.as_ref().filter(|_| !known) {
                let text = format!("another level can still fence {name}, but not this: {trouble}");
                self.note(Class::Warning, text);
            }
        }
    }

    fn note(&self, class: Class, text: String) {
        self.say(Said::Note {
            node: self.node,
            class,
            text,
        });
    }

    fn say(&self, said: Said) {
        // A runner that is gone needs no word.
        let _ = self.said.send(said);
        let _ = self.runner.write(1);
    }
}
