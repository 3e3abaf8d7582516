//! From names to the numbers the daemon uses, and back: people never see a number.

use super::exit::Failure;
use crate::config::{listed, nearest};
use crate::model::{NodeId, TaskIndex};
use crate::node::control::Names;

/// The task of this name.
pub(super) fn task(names: &Names, name: &str) -> Result<TaskIndex, Failure> {
    let position = names.tasks.iter().position(|task| task == name);
    let known = || names.tasks.iter().map(String::as_str);
    position
        .and_then(TaskIndex::new)
        .ok_or_else(|| unknown("task", name, known))
}

/// The node of this name.
pub(super) fn node(names: &Names, name: &str) -> Result<NodeId, Failure> {
    let found = names.nodes.iter().find(|(_, node)| node == name);
    let known = || names.nodes.iter().map(|(_, node)| node.as_str());
    found
        .map(|(id, _)| *id)
        .ok_or_else(|| unknown("node", name, known))
}

fn unknown<'n, I: Iterator<Item = &'n str>>(
    what: &str,
    name: &str,
    known: impl Fn() -> I,
) -> Failure {
    let remedy = match nearest(name, known()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known().next().is_none() => format!("the configuration has no {what}"),
        None => format!("there is {}", listed(known())),
    };
    Failure::wrong(format!("there is no {what} `{name}`"), remedy)
}

/// A node's name, for people.
pub(super) fn of_node(names: &Names, id: NodeId) -> String {
    let found = names.nodes.iter().find(|(node, _)| *node == id);
    found.map_or_else(|| format!("node number {id}"), |(_, name)| name.clone())
}

/// A task's name, for people.
pub(super) fn of_task(names: &Names, index: TaskIndex) -> String {
    let found = names.tasks.get(index.index());
    found
        .cloned()
        .unwrap_or_else(|| format!("task number {}", index.index()))
}

/// A link's name, for people.
pub(super) fn of_link(names: &Names, index: u8) -> String {
    let found = names.links.get(usize::from(index));
    found
        .cloned()
        .unwrap_or_else(|| format!("link number {index}"))
}

/// A sentence of the core with the link's name in it: the core knows links by their position only.
pub(super) fn in_alarm(names: &Names, alarm: &str) -> String {
    let named = alarm.strip_prefix("link ").and_then(|rest| {
        let (number, rest) = rest.split_once(' ')?;
        Some(format!(
            "link {} {rest}",
            of_link(names, number.parse().ok()?)
        ))
    });
    named.unwrap_or_else(|| alarm.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            cluster: "pair".into(),
            node: "alpha".into(),
            nodes: vec![(NodeId::new(1).unwrap(), "alpha".into())],
            links: vec!["cable-1".into()],
            tasks: vec!["web".into(), "mail".into()],
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        assert_eq!(task(&names(), "mail").unwrap(), TaskIndex::new(1).unwrap());
        let Failure::Told {
            problem, remedy, ..
        } = task(&names(), "wbe").unwrap_err()
        else {
            panic!("told")
        };
        assert_eq!(
            (problem.as_str(), remedy.as_str()),
            ("there is no task `wbe`", "did you mean `web`?")
        );
        let Failure::Told { remedy, .. } = node(&names(), "zeta").unwrap_err() else {
            panic!("told")
        };
        assert_eq!(remedy, "there is `alpha`");
    }

    #[test]
    fn alarms_name_the_link() {
        assert_eq!(in_alarm(&names(), "link 0 is down: no carrier"), {
            "link cable-1 is down: no carrier"
        });
        for same in [
            "link x is down",
            "link",
            "the register's disk cannot be read",
        ] {
            assert_eq!(in_alarm(&names(), same), same);
        }
    }
}
