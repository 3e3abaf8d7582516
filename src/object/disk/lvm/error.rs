//! What can be wrong with a volume group.

/// Why a volume group was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// None of its disks was found.
    #[error("no disk that answers belongs to the volume group {group}")]
    NotFound {
        /// Its name.
        group: String,
    },
    /// Its name is that of another one too.
    #[error("there are two volume groups named {group}: rename one by its uuid with `vgrename`")]
    Twice {
        /// Their name.
        group: String,
    },
    /// Not all of it is there.
    #[error("the volume group {group} lacks {count} of its physical volumes")]
    Missing {
        /// Its name.
        group: String,
        /// How many.
        count: usize,
    },
    /// Taken out of use by a person.
    #[error("the volume group {group} is exported: run `vgimport {group}` on one node")]
    Exported {
        /// Its name.
        group: String,
    },
    /// Nodes use it together, under locks.
    #[error(
        "the volume group {group} is shared under lvmlockd ({lock}): a group of one owner must not \
         be, see lvmlockd(8) on `vgchange --lock-type none`"
    )]
    Shared {
        /// Its name.
        group: String,
        /// The lock manager.
        lock: String,
    },
    /// Whose it is cannot be named in a command.
    #[error("the volume group {group} has a system id that is none: `{system}`")]
    StrangeSystem {
        /// Its name.
        group: String,
        /// What it has.
        system: String,
    },
    /// This node cannot own a group.
    #[error(
        "this node has no LVM system id, so no volume group can be its own: set \
         `system_id_source = \"uname\"` in the section `global` of /etc/lvm/lvm.conf"
    )]
    NoSystem,
    /// Another disk has joined it, or left it, right before it was reserved.
    #[error("the physical volumes of {group} have changed while its disks were reserved")]
    Changed {
        /// Its name.
        group: String,
    },
    /// The programs are not installed.
    #[error("there is no {0}: install the package lvm2")]
    NoPrograms(&'static str),
    /// They have printed something else.
    #[error("cannot understand the report of lvm")]
    Report(#[source] serde_json::Error),
}
