//! The register's content on a disk, decoded for people: whom the cluster consists of and who owns
//! what.

use serde_json::{Value, json};

use super::words;
use crate::config::Config;
use crate::engine::{After, Standing, View};
use crate::frame::Keyring;
use crate::model::{NodeId, TaskIndex};
use crate::register::{Ballot, Block};
use crate::storage::area::{
    AreaError, Blocks, Header, Medium, REGION_LEN, newest_block, read_record, split_region,
};

/// The newest view that was written to a disk.
pub(super) struct Newest {
    /// The view.
    pub(super) view: View,
    /// Nodes whose block holds it.
    pub(super) held_by: Vec<NodeId>,
}

/// Finds the view of the highest accepted ballot. `None` where nothing was ever written; words if
/// what is there is not a view.
pub(super) fn newest(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
) -> Result<Option<Result<Newest, String>>, AreaError> {
    if header.medium == Medium::CompareAndWrite {
        return newest_by_record(dev, header, keyring);
    }
    let mut blocks: Vec<(NodeId, Block)> = Vec::new();
    let mut region = vec![0; REGION_LEN];
    for node in header.geometry.nodes() {
        let Some(offset) = header.geometry.region(node) else {
            continue;
        };
        let len = region.len();
        dev.read_at(offset, &mut region)
            .map_err(|source| AreaError::Read {
                offset,
                len,
                source,
            })?;
        let Some((_, a, b)) = split_region(&region) else {
            continue;
        };
        // Lost blocks are among the problems of the report.
        if let Ok(found) = newest_block(&header.nonce, node, a, b, keyring) {
            blocks.push((node, found.stored.block));
        }
    }
    let top = blocks
        .iter()
        .map(|(_, block)| block)
        .max_by_key(|block| block.bal);
    let Some(top) = top.filter(|block| block.bal > Ballot::NONE) else {
        return Ok(None);
    };
    let holders = blocks
        .iter()
        .filter(|(_, block)| block.value.id() == top.value.id());
    let held_by = holders.map(|(node, _)| *node).collect();
    let decoded = View::decode(&top.value.bytes);
    Ok(Some(
        decoded
            .map(|view| Newest { view, held_by })
            .map_err(|error| error.to_string()),
    ))
}

/// The view that the record names. What is wrong with it is among the problems of the report.
fn newest_by_record(
    dev: &impl Blocks,
    header: &Header,
    keyring: &Keyring,
) -> Result<Option<Result<Newest, String>>, AreaError> {
    let Ok((stored, Some(value))) = read_record(dev, header, keyring)? else {
        return Ok(None);
    };
    let held_by = stored.record.place.map(|place| place.node);
    let decoded = held_by.map(|node| {
        let held_by = vec![node];
        View::decode(&value.bytes).map(|view| Newest { view, held_by })
    });
    Ok(decoded.map(|decoded| decoded.map_err(|error| error.to_string())))
}

/// Names of nodes and tasks from the configuration; a number where it has none.
pub(super) struct Named<'c>(pub(super) &'c Config);

impl Named<'_> {
    /// A node.
    pub(super) fn node(&self, id: NodeId) -> String {
        let found = self.0.node_by_id(id);
        found.map_or_else(|| format!("node number {id}"), |node| node.name.clone())
    }

    /// A task.
    pub(super) fn task(&self, index: TaskIndex) -> String {
        let found = self.0.tasks().get(index.index());
        found.map_or_else(
            || format!("task number {}", index.index()),
            |task| task.name.clone(),
        )
    }

    fn nodes(&self, ids: impl IntoIterator<Item = NodeId>) -> String {
        let names: Vec<String> = ids.into_iter().map(|id| self.node(id)).collect();
        if names.is_empty() {
            "nobody".to_owned()
        } else {
            names.join(", ")
        }
    }
}

/// The view as sentences, one a line.
pub(super) fn sentences(newest: &Newest, named: &Named<'_>) -> Vec<String> {
    let view = &newest.view;
    let mut lines = vec![format!(
        "epoch {}, configuration revision {}, in the block of {}",
        view.epoch,
        view.config_revision,
        named.nodes(newest.held_by.iter().copied())
    )];
    let with = |standing: Standing| {
        view.members
            .iter()
            .filter(move |member| member.standing == standing)
    };
    let members = with(Standing::Member).map(|member| member.node);
    lines.push(format!("members: {}", named.nodes(members)));
    if with(Standing::Joining).next().is_some() {
        let joining = with(Standing::Joining).map(|member| member.node);
        lines.push(format!("joining: {}", named.nodes(joining)));
    }
    if !view.standby.is_empty() {
        lines.push(format!("in standby: {}", named.nodes(view.standby.iter())));
    }
    for eviction in &view.evictions {
        lines.push(format!(
            "{} was evicted by {} in epoch {}: {}",
            named.node(eviction.node),
            named.node(eviction.by),
            eviction.epoch,
            eviction.reason.words()
        ));
    }
    for index in (0..view.tasks.len()).filter_map(TaskIndex::new) {
        lines.push(task_sentence(view, index, named));
    }
    lines
}

fn task_sentence(view: &View, index: TaskIndex, named: &Named<'_>) -> String {
    let task = view.task(index);
    let mut line = format!("task {}: ", named.task(index));
    match task.owner {
        Some(owner) => line.push_str(&format!("owned by {}", named.node(owner))),
        None => line.push_str("owned by nobody"),
    }
    if let Some(heir) = task.heir {
        line.push_str(&format!(", to be handed to {}", named.node(heir)));
    }
    if !task.wanted {
        line.push_str(", stopped on purpose");
    }
    match task.after {
        After::Nobody => {}
        After::Node(node) => line.push_str(&format!(", once {} has let go", named.node(node))),
        After::Anybody => line.push_str(", once every other node has let go"),
    }
    if !task.failed_on.is_empty() {
        line.push_str(&format!(
            ", failed on {}",
            named.nodes(task.failed_on.iter())
        ));
    }
    line.push_str(&format!(" ({}; epoch {})", task.cause.words(), task.epoch));
    line
}

/// The view for programs.
pub(super) fn json(newest: &Newest, named: &Named<'_>) -> Value {
    let view = &newest.view;
    let names =
        |ids: Vec<NodeId>| -> Vec<String> { ids.into_iter().map(|id| named.node(id)).collect() };
    let members = view.members.iter().map(|member| {
        let standing = match member.standing {
            Standing::Member => "member",
            Standing::Joining => "joining",
        };
        json!({"name": named.node(member.node), "state": standing})
    });
    let evictions = view.evictions.iter().map(|eviction| {
        json!({
            "name": named.node(eviction.node),
            "by": named.node(eviction.by),
            "epoch": eviction.epoch,
            "reason": eviction.reason.words(),
        })
    });
    let tasks = (0..view.tasks.len())
        .filter_map(TaskIndex::new)
        .map(|index| {
            let task = view.task(index);
            json!({
                "name": named.task(index),
                "owner": task.owner.map(|node| named.node(node)),
                "heir": task.heir.map(|node| named.node(node)),
                "wanted": task.wanted,
                "epoch": task.epoch,
                "failed_on": names(task.failed_on.iter().collect()),
                "cause": task.cause.words(),
            })
        });
    json!({
        "epoch": view.epoch,
        "config_revision": view.config_revision,
        "held_by": names(newest.held_by.clone()),
        "members": members.collect::<Vec<_>>(),
        "standby": names(view.standby.iter().collect()),
        "evictions": evictions.collect::<Vec<_>>(),
        "tasks": tasks.collect::<Vec<_>>(),
    })
}

/// Tasks in a heartbeat that are not simply stopped, in words.
pub(super) fn task_states(
    tasks: &[(TaskIndex, crate::model::TaskState)],
    named: &Named<'_>,
) -> String {
    let words: Vec<String> = tasks
        .iter()
        .map(|(task, state)| format!("{} {}", named.task(*task), words::state(*state)))
        .collect();
    if words.is_empty() {
        words::NOTHING.to_owned()
    } else {
        words.join(", ")
    }
}
