//! `move`, `start`, `stop`, `standby`, `online`, `confirm-off`: give the command, then wait until
//! the cluster shows what was asked for, and say how long it took.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::args::{ConfirmOffArgs, MoveArgs, NodeArgs, Places, TaskArgs, Waiting};
use super::exit::{Exit, Failure};
use super::question::confirm;
use super::status::{fetch, owner_state, unexpected};
use super::{names, words};
use crate::engine::{Command, NodeStatus, Snapshot, TaskStatus};
use crate::model::{NodeId, TaskIndex, TaskState};
use crate::node::control::{COMMAND_MAX, Names, Request, Response, ask};

/// Between two looks: fine at first, because the time is told, coarser later.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LATER: Duration = Duration::from_millis(50);

/// How long to look finely.
const FINE: Duration = Duration::from_secs(2);

/// A little beyond what the daemon itself waits for its core.
const ANSWER_MAX: Duration = COMMAND_MAX.saturating_add(Duration::from_secs(5));

/// An answer is worth waiting for so long, whatever --timeout says: without it nothing is known.
const ANSWER_MIN: Duration = Duration::from_millis(500);

pub(super) fn move_task(
    places: &Places,
    args: &MoveArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let names = fetch(places)?.names;
    let (task, to) = (
        names::task(&names, &args.task)?,
        names::node(&names, &args.to)?,
    );
    let order = Order {
        command: Command::Move { task, to },
        goal: Goal::RunsOn { task, to },
    };
    order.carry_out(places, &names, &args.waiting, out)
}

pub(super) fn start(
    places: &Places,
    args: &TaskArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let names = fetch(places)?.names;
    let task = names::task(&names, &args.task)?;
    let order = Order {
        command: Command::Start { task },
        goal: Goal::Runs { task },
    };
    order.carry_out(places, &names, &args.waiting, out)
}

pub(super) fn stop(places: &Places, args: &TaskArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let names = fetch(places)?.names;
    let task = names::task(&names, &args.task)?;
    let order = Order {
        command: Command::Stop { task },
        goal: Goal::Stopped { task },
    };
    order.carry_out(places, &names, &args.waiting, out)
}

pub(super) fn standby(
    places: &Places,
    args: &NodeArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let names = fetch(places)?.names;
    let node = this_or(&names, args)?;
    let order = Order {
        command: Command::Standby { node },
        goal: Goal::Empty { node },
    };
    order.carry_out(places, &names, &args.waiting, out)
}

pub(super) fn online(
    places: &Places,
    args: &NodeArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let names = fetch(places)?.names;
    let node = this_or(&names, args)?;
    let order = Order {
        command: Command::Online { node },
        goal: Goal::Online { node },
    };
    order.carry_out(places, &names, &args.waiting, out)
}

fn this_or(names: &Names, args: &NodeArgs) -> Result<NodeId, Failure> {
    names::node(names, args.name.as_deref().unwrap_or(&names.node))
}

pub(super) fn confirm_off(
    places: &Places,
    args: &ConfirmOffArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let status = fetch(places)?;
    let names = &status.names;
    let node = names::node(names, &args.name)?;
    let name = &args.name;
    if *name == names.node {
        let problem = format!("{name} is this node, and it is plainly not off");
        return Err(Failure::refused(problem, "name the node that is off"));
    }
    let heard = status
        .snapshot
        .as_ref()
        .and_then(|snapshot| heard_ms(snapshot, node));
    if let Some(ms) = heard.filter(|ms| *ms < 10_000.0) {
        let problem = format!("{name} was heard {} ago: it is not off", words::ms(ms));
        return Err(Failure::refused(
            problem,
            "switch it off first, or wait until it has joined",
        ));
    }
    writeln!(
        out,
        "You are about to vouch that {name} is switched off. If it is not, its tasks may run\n\
         twice and destroy their data. Look at the machine, or pull its plug, before you go on."
    )?;
    out.flush()?;
    if !args.yes {
        confirm(&format!("Is {name} off?"))?;
    }
    let text = send(places, Command::ConfirmOff { node }, ANSWER_MAX)?;
    writeln!(out, "{text}")?;
    Ok(Exit::Well)
}

fn heard_ms(snapshot: &Snapshot, node: NodeId) -> Option<f64> {
    snapshot
        .nodes
        .iter()
        .find(|status| status.node == node)?
        .heard_ms
}

/// Gives a command; the daemon's word on it.
fn send(places: &Places, command: Command, deadline: Duration) -> Result<String, Failure> {
    match ask(&places.run_dir, &Request::Command(command), deadline)? {
        Response::Done(text) => Ok(text),
        other => Err(unexpected(other)),
    }
}

/// A command and what the cluster looks like once it has taken effect.
struct Order {
    command: Command,
    goal: Goal,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Goal {
    /// A task runs on a node.
    RunsOn { task: TaskIndex, to: NodeId },
    /// A task runs somewhere.
    Runs { task: TaskIndex },
    /// A task runs nowhere.
    Stopped { task: TaskIndex },
    /// A node is in standby and runs nothing.
    Empty { node: NodeId },
    /// A node is not in standby.
    Online { node: NodeId },
}

impl Order {
    fn carry_out(
        self,
        places: &Places,
        names: &Names,
        waiting: &Waiting,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let begun = Instant::now();
        let patience = if waiting.no_wait {
            ANSWER_MAX
        } else {
            waiting.timeout
        };
        let said = send(places, self.command, patience.clamp(ANSWER_MIN, ANSWER_MAX))?;
        if waiting.no_wait {
            writeln!(out, "agreed: {said}")?;
            return Ok(Exit::Well);
        }
        let mut last = None;
        loop {
            let waited = begun.elapsed();
            // A daemon that is restarted meanwhile changes nothing about the order.
            match fetch(places) {
                Ok(status) => last = status.snapshot.or(last),
                Err(failure) if waited >= waiting.timeout => return Err(failure),
                Err(_) => {}
            }
            let goal = last.as_ref().map(|snapshot| self.goal.reached(snapshot));
            match goal {
                Some(Reached::Yes) => {
                    let took = words::ms(begun.elapsed().as_secs_f64() * 1000.0);
                    let place = last.as_ref().map(|seen| self.goal.done(seen, names));
                    writeln!(out, "{}, after {took}", place.unwrap_or(said))?;
                    return Ok(Exit::Well);
                }
                Some(Reached::Never(why)) => {
                    return Err(self.goal.missed(names, last.as_ref(), &why));
                }
                Some(Reached::NotYet) | None if begun.elapsed() >= waiting.timeout => {
                    let why = format!("after {}", words::ms(waited.as_secs_f64() * 1000.0));
                    return Err(self.goal.missed(names, last.as_ref(), &why));
                }
                Some(Reached::NotYet) | None => {}
            }
            thread::sleep(if waited < FINE {
                LOOK_FIRST
            } else {
                LOOK_LATER
            });
        }
    }
}

/// How far an order has come.
enum Reached {
    Yes,
    NotYet,
    /// It has come out otherwise.
    Never(String),
}

impl Goal {
    fn reached(self, snapshot: &Snapshot) -> Reached {
        let yes = |truth: bool| if truth { Reached::Yes } else { Reached::NotYet };
        match self {
            Goal::RunsOn { task, to } => match find(snapshot, task) {
                Some(task) if task.failed_on.contains(&to) && task.owner != Some(to) => {
                    Reached::Never("it could not be started there".to_owned())
                }
                Some(task) => yes(task.owner == Some(to) && task.heir.is_none() && runs(task)),
                None => Reached::NotYet,
            },
            Goal::Runs { task } => {
                yes(find(snapshot, task).is_some_and(|task| task.wanted && runs(task)))
            }
            Goal::Stopped { task } => yes(find(snapshot, task).is_some_and(|task| {
                !task.wanted && task.states.iter().all(|(_, state)| !state.may_run())
            })),
            Goal::Empty { node } if !in_standby(snapshot, node) => Reached::NotYet,
            Goal::Empty { node } => match kept(snapshot, node).next() {
                None => Reached::Yes,
                Some(task) if task.heir.is_none() && !others_can(snapshot, node) => {
                    Reached::Never("no other node can take it, so it stays".to_owned())
                }
                Some(_) => Reached::NotYet,
            },
            Goal::Online { node } => yes(!in_standby(snapshot, node)),
        }
    }

    /// What was reached, in one line without its end.
    fn done(self, snapshot: &Snapshot, names: &Names) -> String {
        match self {
            Goal::RunsOn { task, .. } | Goal::Runs { task } => {
                let owner = find(snapshot, task).and_then(|task| task.owner);
                let owner = owner.map_or("?".to_owned(), |node| names::of_node(names, node));
                format!("{} runs on {owner}", names::of_task(names, task))
            }
            Goal::Stopped { task } => {
                format!(
                    "{} is stopped and stays stopped",
                    names::of_task(names, task)
                )
            }
            Goal::Empty { node } => {
                format!(
                    "{} is in standby and runs no task",
                    names::of_node(names, node)
                )
            }
            Goal::Online { node } => format!("{} is online", names::of_node(names, node)),
        }
    }

    /// What was not reached, and how things stand instead.
    fn missed(self, names: &Names, seen: Option<&Snapshot>, why: &str) -> Failure {
        let (problem, task) = match self {
            Goal::RunsOn { task, to } => (
                format!(
                    "{} does not run on {}: {why}",
                    names::of_task(names, task),
                    names::of_node(names, to)
                ),
                Some(task),
            ),
            Goal::Runs { task } => (
                format!("{} does not run yet, {why}", names::of_task(names, task)),
                Some(task),
            ),
            Goal::Stopped { task } => (
                format!("{} is not stopped yet, {why}", names::of_task(names, task)),
                Some(task),
            ),
            Goal::Empty { node } => {
                let tasks = seen.map(|seen| kept(seen, node)).into_iter().flatten();
                let tasks: Vec<String> =
                    tasks.map(|task| names::of_task(names, task.task)).collect();
                let name = names::of_node(names, node);
                let tasks = if tasks.is_empty() {
                    "none".to_owned()
                } else {
                    tasks.join(", ")
                };
                (
                    format!("{name} takes no more tasks, but has {tasks}: {why}"),
                    None,
                )
            }
            Goal::Online { node } => (
                format!("{} is not online yet, {why}", names::of_node(names, node)),
                None,
            ),
        };
        let now = task.zip(seen).and_then(|(task, seen)| find(seen, task));
        let problem = match now {
            Some(now) => format!("{problem}; now {}", stands(names, now)),
            None => problem,
        };
        let remedy = match task {
            Some(task) => format!("`standfast why {}` tells more", names::of_task(names, task)),
            None => "`standfast status` shows which, and why".to_owned(),
        };
        Failure::new(Exit::Late, problem, remedy)
    }
}

fn stands(names: &Names, task: &TaskStatus) -> String {
    let state = owner_state(task).map_or("unknown", words::state);
    let place = match task.owner {
        Some(owner) => format!("it is {state} on {}", names::of_node(names, owner)),
        None => "nobody owns it".to_owned(),
    };
    match &task.blocked {
        Some(blocked) => format!("{place}: {blocked}"),
        None => place,
    }
}

fn find(snapshot: &Snapshot, task: TaskIndex) -> Option<&TaskStatus> {
    snapshot.tasks.iter().find(|status| status.task == task)
}

fn runs(task: &TaskStatus) -> bool {
    owner_state(task) == Some(TaskState::Started)
}

/// Tasks that a node has, or is to get, or may still be running.
fn kept(snapshot: &Snapshot, node: NodeId) -> impl Iterator<Item = &TaskStatus> {
    snapshot.tasks.iter().filter(move |task| {
        let state = task.states.iter().find(|(other, _)| *other == node);
        task.owner == Some(node)
            || task.heir == Some(node)
            || state.is_some_and(|(_, state)| state.may_run())
    })
}

/// Is there another node that could take a task at all?
fn others_can(snapshot: &Snapshot, node: NodeId) -> bool {
    let able = |other: &NodeStatus| other.state == "member" && !other.standby;
    snapshot
        .nodes
        .iter()
        .any(|other| other.node != node && able(other))
}

fn in_standby(snapshot: &Snapshot, node: NodeId) -> bool {
    snapshot
        .nodes
        .iter()
        .any(|status| status.node == node && status.standby)
}
