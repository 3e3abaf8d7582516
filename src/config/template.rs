//! The configuration that `standfast init` writes: complete, commented, and a lesson in itself.
//!
//! Remarks begin with `# `, settings that are switched off with `#` alone: whoever removes that one
//! character has a setting that works. What was not given is filled with a placeholder that parses
//! and that the check of the host then refuses by name.

use std::fmt::Write;

use super::kind::Kind;
use crate::model::ClusterId;

/// What is known when the first configuration is written.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Name of the cluster.
    pub name: &'a str,
    /// Its fresh random id.
    pub id: ClusterId,
    /// Names of the nodes; they get the ids 1, 2, ... in this order.
    pub nodes: &'a [&'a str],
    /// Interface of each network link, named alike on all nodes.
    pub interfaces: &'a [&'a str],
    /// The register's shared disk or its three, if they are known yet.
    pub disks: &'a [&'a str],
    /// Where the secret is, if not in the usual place.
    pub secret: Option<&'a str>,
}

/// Writes the file. Names are quoted, not checked: whoever parses the text does that.
#[must_use]
pub fn commented(draft: &Draft<'_>, kinds: &[Kind]) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    cluster(draft, &mut text);
    text.push_str(NODES);
    for (at, node) in draft.nodes.iter().enumerate() {
        let _ = write!(
            text,
            "[[node]]\nname = {}\nid = {}\n\n",
            quoted(node),
            at + 1
        );
    }
    text.push_str(LINKS);
    let interfaces = if draft.interfaces.is_empty() {
        &["eth1", "eth2"]
    } else {
        draft.interfaces
    };
    for (at, interface) in interfaces.iter().enumerate() {
        let _ = write!(
            text,
            "[[link]]\nname = \"cable-{}\"\nkind = \"ethernet\"\n",
            at + 1
        );
        let _ = write!(text, "interface = {}\n\n", quoted(interface));
    }
    text.push_str(DISK);
    disks(draft, &mut text);
    text.push_str(WATCHDOG);
    fence(draft, &mut text);
    text.push_str(TASKS);
    if let [first, ..] = draft.nodes {
        let order: Vec<String> = draft.nodes.iter().map(|node| quoted(node)).collect();
        let _ = writeln!(text, "#nodes = [{}]   # {} first", order.join(", "), first);
    }
    text.push_str(RESTART);
    for kind in kinds {
        let _ = write!(text, "\n# {}: {}\n", kind.name, kind.summary);
        for line in kind.example.trim().lines() {
            let line = line.trim_end();
            let _ = writeln!(
                text,
                "{}{line}",
                if line.starts_with('#') { "" } else { "#" }
            );
        }
    }
    text
}

/// The links of kind disk.
fn disks(draft: &Draft<'_>, text: &mut String) {
    let disks = if draft.disks.is_empty() {
        &["/dev/disk/by-id/CHANGE-ME"]
    } else {
        draft.disks
    };
    for (at, disk) in disks.iter().enumerate() {
        let _ = write!(
            text,
            "{}[[link]]\nname = \"disk-{}\"\nkind = \"disk\"\ndevice = {}\n",
            if at == 0 { "" } else { "\n" },
            at + 1,
            quoted(disk)
        );
    }
}

/// `[[fence]]`.
fn fence(draft: &Draft<'_>, text: &mut String) {
    if let [first, ..] = draft.nodes {
        let strip = format!("{first} = \"1\"");
        let _ = writeln!(
            text,
            "#nodes = [{}]   # power strip: plug = {{ {strip} }}",
            quoted(first)
        );
    }
    text.push_str(FENCE);
}

/// The head of the file and `[cluster]`.
fn cluster(draft: &Draft<'_>, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{HEAD}");
    let id: String = draft.id.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = write!(
        text,
        "name = {}\n{ID}id = \"{id}\"\n{DETECT}",
        quoted(draft.name)
    );
    let _ = match draft.secret {
        Some(path) => write!(text, "secret = {}\n\n", quoted(path)),
        None => write!(text, "#secret = \"/etc/standfast/secret\"\n\n"),
    };
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const HEAD: &str = "\
# The configuration of the whole cluster. It is the same on all nodes, byte for byte if you like:
# nodes whose values differ raise an alarm. `standfast check` reads it and prints every time that
# follows from it, `standfast check --live` compares it with this machine. Nothing here has to be
# repeated elsewhere.

# Raise it with every change, so that it is plain which file is the newer one.
revision = 1

[cluster]
# 1 to 32 of a-z, 0-9 and the hyphen, as all names here.
";

const ID: &str = "\
# Made once by `standfast init`, never by hand: it keeps clusters on one wire or array apart.
";

const DETECT: &str = "\
# The one timing knob: how long a node is silent before its tasks run elsewhere. Everything else
# follows from it. Shorter finds failures sooner, but needs a faster disk: one write and one read
# must fit into a twentieth of it. From 20ms to 1m.
detect = \"500ms\"
# The file with the cluster's secret, readable by root only (mode 0600), the same on all nodes.
";

const NODES: &str = "\
# One for each server, 2 to 64. The id, 1 to 64, fixes the node's place on the disk: never give the
# id of one node to another.
";

const LINKS: &str = "\
# Each link is one way between all nodes. Two networks over different cards, cables and switches,
# without an IP address of their own; the cluster sends raw Ethernet frames. Where the interface
# has another name on each node, write: interface = { NODE = \"eth1\", OTHER = \"eth2\" }
";

const DISK: &str = "\
# A disk that all nodes reach, prepared with `standfast disk format`. It carries frames too, and the
# register that decides who may take over. Use a name that lasts: `ls -l /dev/disk/by-id`. One, or
# three on different arrays, formatted together: then the register does without any one of them.
";

const WATCHDOG: &str = "
# Resets a node that hangs so badly that nothing else helps. Whole seconds.
#[watchdog]
#device = \"/dev/watchdog\"   # or \"none\"
#timeout = \"10s\"
# A node that cannot let go of what it may not have any more resets itself. Only with a device.
#self-fence = true

# Switches a node off that was put out, through an agent of the package fence-agents; once for each
# device. All devices of a level must do it, then the next level is tried.
#[[fence]]
#name = \"bmc-a\"
#agent = \"fence_ipmilan\"
";

const FENCE: &str = "\
#level = 1
#action = \"off\"          # or \"reboot\"
#timeout = \"60s\"
#test-every = \"1h\"
#options = { ip = \"10.1.0.1\", username = \"standfast\", password = \"CHANGE-ME\" }

";

const TASKS: &str = "\
# What the cluster keeps running: a task runs on one node at a time, all its objects with it.
#[[task]]
#name = \"web\"
# Where it may run, the preferred node first; all nodes if the line is missing.
";

const RESTART: &str = "\
#enabled = true
# Wait for the proof that a node which had it is off, however long ago it was put out. Without
# this line the end of its lease will do.
#fence-required = false
# A process that dies is started again in place this often within the window; then the task moves.
#[task.restart]
#attempts = 3
#window = \"10m\"
#
# Its objects start in the order of their `step`, 1 to 64, and stop in reverse; equal steps go
# together. Below is one example of each kind.
";
