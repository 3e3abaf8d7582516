//! The devices of one node, in levels: what it takes to say that the node is off.
//!
//! ```text
//! level 1   off on every device --- all done ---> status on every device --- all off ---> off
//!              | one fails                           | one is not off, or cannot tell
//! level 2   the same                              ...
//! ```
//! All devices of a level must agree, because a server with two power supplies is off only when
//! both are. An agent's word that it has switched off is not enough: the device is asked again.

use std::sync::Arc;

use parking_lot::Mutex;

use super::agent::{Action, Answer, Call, NoAnswer};
use crate::config::{Config, FenceAction, FenceConfig, NodeConfig};
use crate::object::{Cancel, sentence};

/// `status` of what is switched on, and of what is off.
const ON: Option<i32> = Some(0);
const OFF: Option<i32> = Some(2);

/// A device, whichever nodes it switches; it does one thing at a time.
#[derive(Debug)]
struct Device {
    config: FenceConfig,
    turn: Mutex<()>,
}

/// A device as it serves one node.
#[derive(Clone, Debug)]
struct Rung {
    device: Arc<Device>,
    plug: Option<String>,
}

/// Every device of the cluster.
#[derive(Debug)]
pub struct Devices(Vec<Arc<Device>>);

/// The devices of one node.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// What the cluster calls the node.
    node: String,
    /// By rising level.
    rungs: Vec<Rung>,
}

/// What a try of a device came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Name of the device.
    pub device: String,
    /// Its level.
    pub level: u8,
    /// Why it could not switch the node off if it had to; none if it could, as far as can be told.
    pub trouble: Option<String>,
}

/// Why a node is not off, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOff {
    /// Every level has failed, each with its reason.
    Failed(String),
    /// Nobody wants it any more.
    CalledOff,
}

impl Devices {
    /// All devices of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Devices {
        let device = |fence: &FenceConfig| {
            Arc::new(Device {
                config: fence.clone(),
                turn: Mutex::new(()),
            })
        };
        Devices(config.fences().iter().map(device).collect())
    }

    /// Those of one node; none if it has none.
    #[must_use]
    pub fn ladder(&self, node: &NodeConfig) -> Option<Ladder> {
        let mut rungs: Vec<Rung> = Vec::new();
        for device in &self.0 {
            let plugs = device.config.plugs.iter();
            let plugs = plugs.filter(|plug| plug.node == node.id);
            rungs.extend(plugs.map(|plug| Rung {
                device: Arc::clone(device),
                plug: plug.plug.clone(),
            }));
        }
        rungs.sort_by_key(Rung::level);
        (!rungs.is_empty()).then(|| Ladder {
            node: node.name.clone(),
            rungs,
        })
    }
}

impl Rung {
    fn level(&self) -> u8 {
        self.device.config.level
    }

    fn call(&self, node: &str, action: Action, cancel: &Cancel) -> Result<Answer, NoAnswer> {
        let config = &self.device.config;
        let _turn = self.device.turn.lock();
        Call {
            agent: &config.agent,
            action,
            options: &config.options,
            plug: self.plug.as_deref(),
            node,
            timeout: config.timeout.to_std(),
        }
        .run(cancel)
    }

    /// Calls it and wants one of these exit codes.
    fn demand(
        &self,
        node: &str,
        action: Action,
        codes: &[Option<i32>],
        cancel: &Cancel,
    ) -> Result<(), NotOff> {
        let what = match action {
            Action::Off => "off",
            Action::On => "on",
            Action::Status => "status",
        };
        let name = &self.device.config.name;
        match self.call(node, action, cancel) {
            Ok(answer) if codes.contains(&answer.code) => Ok(()),
            Ok(answer) if action == Action::Status && answer.code == ON => {
                Err(NotOff::Failed(format!("{name} says that it is still on")))
            }
            Ok(answer) => Err(NotOff::Failed(format!("{name} {what}: {}", answer.words()))),
            Err(NoAnswer::Cancelled) => Err(NotOff::CalledOff),
            Err(error) => Err(NotOff::Failed(format!(
                "{name} {what}: {}",
                sentence(&error)
            ))),
        }
    }
}

impl Ladder {
    /// Shortest time between two tries of the devices that their configuration asks for.
    #[must_use]
    pub fn test_every(&self) -> std::time::Duration {
        let every = self.rungs.iter().map(|rung| rung.device.config.test_every);
        every.min().unwrap_or_default().to_std()
    }

    /// Levels with their rungs, rising.
    fn levels(&self) -> impl Iterator<Item = &[Rung]> {
        self.rungs
            .chunk_by(|one, other| one.level() == other.level())
    }

    /// Switches the node off, level by level. Gives the level that did it.
    ///
    /// # Errors
    ///
    /// No level could, or it was called off: then the node may be off all the same.
    pub fn switch_off(&self, cancel: &Cancel) -> Result<u8, NotOff> {
        let mut failures = Vec::new();
        for level in self.levels() {
            match self.level_off(level, cancel) {
                Ok(()) => return Ok(level[0].level()),
                Err(NotOff::CalledOff) => return Err(NotOff::CalledOff),
                Err(NotOff::Failed(why)) => failures.push(why),
            }
        }
        Err(NotOff::Failed(failures.join("; ")))
    }

    fn level_off(&self, level: &[Rung], cancel: &Cancel) -> Result<(), NotOff> {
        for rung in level {
            rung.demand(&self.node, Action::Off, &[Some(0)], cancel)?;
        }
        for rung in level {
            rung.demand(&self.node, Action::Status, &[OFF], cancel)?;
        }
        Ok(())
    }

    /// Names of the devices of a level.
    #[must_use]
    pub fn names(&self, level: u8) -> String {
        let rungs = self.rungs.iter().filter(|rung| rung.level() == level);
        let names: Vec<&str> = rungs.map(|rung| rung.device.config.name.as_str()).collect();
        names.join(", ")
    }

    /// Switches a node that is off on again, where the devices of the level are to do so. None if
    /// they are not.
    pub fn switch_on(&self, level: u8, cancel: &Cancel) -> Option<Result<(), NotOff>> {
        let reboots = |rung: &&Rung| {
            rung.level() == level && rung.device.config.action == FenceAction::Reboot
        };
        let mut done = None;
        for rung in self.rungs.iter().filter(reboots) {
            let result = rung.demand(&self.node, Action::On, &[Some(0)], cancel);
            if result.is_err() {
                return Some(result);
            }
            done = Some(Ok(()));
        }
        done
    }

    /// Asks every device for the node's status: whoever can tell can be reached, and knows the
    /// plug. Stops when it is called off.
    #[must_use]
    pub fn test(&self, cancel: &Cancel) -> Option<Vec<Tried>> {
        let mut tried = Vec::new();
        for rung in &self.rungs {
            let asked = rung.demand(&self.node, Action::Status, &[ON, OFF], cancel);
            let trouble = match asked {
                Ok(()) => None,
                Err(NotOff::CalledOff) => return None,
                Err(NotOff::Failed(why)) => Some(why),
            };
            tried.push(Tried {
                device: rung.device.config.name.clone(),
                level: rung.level(),
                trouble,
            });
        }
        Some(tried)
    }
}

/// What stands against switching the node off: every level has a device in trouble. `None` while
/// one level is whole.
#[must_use]
pub fn hopeless(tried: &[Tried]) -> Option<String> {
    let mut levels = tried.chunk_by(|one, other| one.level == other.level);
    let broken = |level: &[Tried]| level.iter().any(|device| device.trouble.is_some());
    if tried.is_empty() || !levels.all(broken) {
        return None;
    }
    let troubles: Vec<&str> = tried.iter().filter_map(|t| t.trouble.as_deref()).collect();
    Some(troubles.join("; "))
}
