//! What the guard has to know of the configuration, worked out before it becomes real-time.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use standfast_sys::netlink::Address;

use super::addresses::Id;
use crate::config::{Config, Timing};
use crate::model::TaskIndex;
use crate::node::paths;

/// One address of one object of a task, on this node's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// Whose.
    pub task: TaskIndex,
    /// Position among the task's objects.
    pub object: u8,
    /// Position among the object's addresses.
    pub position: u8,
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, 1..=32.
    pub prefix: u8,
    /// Interface on this node.
    pub interface: String,
}

impl AddressPlan {
    pub(super) fn id(&self) -> Id {
        (self.task, self.object, self.position)
    }

    pub(super) fn task_bit(&self) -> u64 {
        1 << self.task.index()
    }

    /// Is this the address the kernel speaks of? The same ip with another prefix is another one.
    pub(super) fn is(&self, address: &Address) -> bool {
        self.address == address.ip && self.prefix == address.prefix
    }
}

/// One task, whether or not it may run on this node: something of it may be left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPlan {
    /// Its name.
    pub name: String,
    /// Its cgroup, below where cgroup2 is mounted.
    pub cgroup: PathBuf,
}

/// Everything the guard's loop works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The times.
    pub timing: Timing,
    /// All tasks, by task index.
    pub tasks: Vec<TaskPlan>,
    /// All addresses this node may be asked to hold.
    pub addresses: Vec<AddressPlan>,
}

impl Plan {
    /// What the node of this name may be asked to hold.
    #[must_use]
    pub fn of(config: &Config, node: &str) -> Plan {
        let cluster = &config.cluster().name;
        let task = |name: &str| TaskPlan {
            name: name.to_owned(),
            cgroup: paths::task_cgroup(cluster, node, name),
        };
        let mut addresses = Vec::new();
        for task in config.tasks() {
            for (object, config) in (0..).zip(&task.objects) {
                for (position, claim) in (0..).zip(&config.claims.addresses) {
                    let Some(interface) = claim.interface_on(node) else {
                        continue;
                    };
                    addresses.push(AddressPlan {
                        task: task.index,
                        object,
                        position,
                        address: claim.address,
                        prefix: claim.prefix,
                        interface: interface.to_owned(),
                    });
                }
            }
        }
        let tasks = config
            .tasks()
            .iter()
            .map(|config| task(&config.name))
            .collect();
        Plan {
            timing: *config.timing(),
            tasks,
            addresses,
        }
    }

    /// The lifetime that addresses get in the kernel, in its whole seconds.
    #[must_use]
    pub fn lifetime(&self) -> NonZeroU32 {
        let seconds = self.timing.address_lifetime().as_ms() / 1_000;
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX - 1);
        NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN)
    }
}
