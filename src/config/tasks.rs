//! Reads `[[task]]` and `[[task.object]]`; the parameters of an object are judged by its kind.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::{Claims, Kind, ParameterError, Remark};
use super::names::{doubled, read_name};
use super::parse::Nodes;
use super::problem::{Problem, Problems, TextSpan};
use super::reader::{At, Section, plain_value};
use super::schema::{self, Key, either, listed, nearest};
use super::types::{FenceConfig, NodeConfig, ObjectConfig, Place, RestartConfig, TaskConfig};
use crate::model::{NodeId, TASKS_MAX, TaskIndex};
use crate::time::Span;

/// Most objects of a task.
pub const OBJECTS_MAX: usize = 64;

/// Largest step; as many as there can be objects.
pub const STEP_MAX: u8 = 64;

/// Most restarts within a window.
const ATTEMPTS_MAX: i64 = 1_000;

/// Shortest and longest window of restarts: a second, a week.
const WINDOW: std::ops::RangeInclusive<Span> = Span::from_ms(1_000)..=Span::from_ms(604_800_000);

const RESTART_DEFAULT: RestartConfig = RestartConfig {
    attempts: 3,
    window: Span::from_ms(600_000),
};

/// Something that one object claimed for itself alone, or for its task.
struct Taken {
    claim: String,
    task: String,
    owner: String,
    span: TextSpan,
}

/// Reads all tasks.
pub(super) fn read(
    top: &Section<'_>,
    nodes: &Nodes,
    fences: &[FenceConfig],
    kinds: &[Kind],
    problems: &mut Problems,
) -> Vec<TaskConfig> {
    let tables = top.tables("task", problems);
    if let Some(extra) = tables.get(TASKS_MAX) {
        let problem = format!("there are {} tasks", tables.len());
        let remedy = format!("a cluster has at most {TASKS_MAX} tasks: join or remove some");
        problems.error(extra.span.clone(), problem, remedy);
    }
    let mut names: Vec<At<&str>> = Vec::new();
    let mut taken: Vec<Taken> = Vec::new();
    let mut tasks = Vec::new();
    for (position, table) in tables.iter().enumerate() {
        let Some(index) = TaskIndex::new(position) else {
            break;
        };
        let span = Some(table.span.clone());
        let section = Section::open(&schema::TASK, span, table.value, problems);
        let name = read_name(&section, "task", problems);
        let text = name.as_ref().map_or("", |name| name.value).to_owned();
        if let Some(name) = name
            && !doubled("tasks", &name, &names, problems)
        {
            names.push(name);
        }
        let task_nodes = read_nodes(&section, nodes, problems);
        let enabled = section.boolean("enabled", problems).unwrap_or(true);
        let fence_required = section.boolean("fence-required", problems) == Some(true);
        if fence_required {
            check_fences(&section, &task_nodes, nodes, fences, problems);
        }
        let restart = read_restart(&section, problems);
        let place = Within {
            task: &text,
            task_nodes: &task_nodes,
            nodes,
            kinds,
        };
        let objects = read_objects(&section, &place, &mut taken, problems);
        tasks.push(TaskConfig {
            name: text,
            index,
            nodes: task_nodes,
            enabled,
            fence_required,
            restart,
            objects,
        });
    }
    tasks
}

fn read_nodes(section: &Section<'_>, nodes: &Nodes, problems: &mut Problems) -> Vec<NodeId> {
    let all = || nodes.list.iter().map(|node| node.id).collect();
    let Some(written) = section.strings("nodes", problems) else {
        return all();
    };
    if written.value.is_empty() {
        let remedy = "name the nodes, the preferred one first, or remove the line for all nodes";
        problems.error(
            written.span,
            "`nodes` is empty: the task can run nowhere",
            remedy,
        );
        return all();
    }
    let mut names: Vec<At<&str>> = Vec::new();
    let mut found = Vec::new();
    for name in written.value {
        if let Some(first) = names.iter().find(|first| first.value == name.value) {
            let problem = format!("node `{}` is listed twice", name.value);
            let problem = Problem::error(name.span.clone(), problem, "keep the first one");
            problems.push(problem.and_at(first.span.clone(), "also listed here"));
            continue;
        }
        found.extend(nodes.find(&name, problems));
        names.push(name);
    }
    found
}

/// A task that waits for the proof that a node is off would wait for ever if nothing can give it.
fn check_fences(
    section: &Section<'_>,
    task_nodes: &[NodeId],
    nodes: &Nodes,
    fences: &[FenceConfig],
    problems: &mut Problems,
) {
    let plugs = || fences.iter().flat_map(|fence| &fence.plugs);
    let bare = |node: &&NodeConfig| {
        task_nodes.contains(&node.id) && !plugs().any(|plug| plug.node == node.id)
    };
    for node in nodes.list.iter().filter(bare) {
        let span = section.value("fence-required").map(Spanned::span);
        let problem = format!("nothing can switch node `{}` off", node.name);
        let remedy = format!(
            "add a [[fence]] for `{}`, or remove `fence-required`",
            node.name
        );
        problems.push(Problem::error(span, problem, remedy));
    }
}

fn read_restart(section: &Section<'_>, problems: &mut Problems) -> RestartConfig {
    let Some(table) = section.table("restart", problems) else {
        return RESTART_DEFAULT;
    };
    let section = Section::open(&schema::RESTART, Some(table.span), table.value, problems);
    let attempts = section.integer("attempts", 0..=ATTEMPTS_MAX, problems);
    let window = section.duration("window", WINDOW, problems);
    RestartConfig {
        attempts: attempts.map_or(RESTART_DEFAULT.attempts, |attempts| attempts.value as u32),
        window: window.map_or(RESTART_DEFAULT.window, |window| window.value),
    }
}

/// What an object is read within.
struct Within<'a> {
    task: &'a str,
    task_nodes: &'a [NodeId],
    nodes: &'a Nodes,
    kinds: &'a [Kind],
}

fn read_objects(
    section: &Section<'_>,
    within: &Within<'_>,
    taken: &mut Vec<Taken>,
    problems: &mut Problems,
) -> Vec<ObjectConfig> {
    let tables = section.tables("object", problems);
    if section.lacks("object") {
        let problem = "the task has no object: there is nothing to run";
        let kinds = either(within.kinds.iter().map(|kind| kind.name));
        let remedy = format!("add a [[task.object]] below it, of kind {kinds}");
        problems.error(section.span(), problem, remedy);
    }
    if let Some(extra) = tables.get(OBJECTS_MAX) {
        let problem = format!("the task has {} objects", tables.len());
        let remedy = format!("a task has at most {OBJECTS_MAX} objects: split it");
        problems.error(extra.span.clone(), problem, remedy);
    }
    let mut names: Vec<At<&str>> = Vec::new();
    let mut objects = Vec::new();
    for table in tables.iter().take(OBJECTS_MAX) {
        objects.extend(read_object(table, within, &mut names, taken, problems));
    }
    objects
}

fn read_object<'t>(
    table: &At<&'t DeTable<'t>>,
    within: &Within<'_>,
    names: &mut Vec<At<&'t str>>,
    taken: &mut Vec<Taken>,
    problems: &mut Problems,
) -> Option<ObjectConfig> {
    let kind = find_kind(table, within.kinds, problems);
    let section = match kind {
        Some(kind) => {
            let title = format!("an object of kind {}", kind.name);
            let own = kind.parameters.iter().map(|name| Key { name, example: "" });
            let keys = schema::OBJECT.keys.iter().copied().chain(own).collect();
            Section::open_with(
                &title,
                keys,
                Some(table.span.clone()),
                table.value,
                problems,
            )
        }
        None => Section::of_unknown_kind(&schema::OBJECT, table),
    };
    let name = read_name(&section, "object", problems);
    let step = section.integer("step", 1..=i64::from(STEP_MAX), problems);
    let place = name
        .as_ref()
        .map_or(table.span.clone(), |name| name.span.clone());
    let text = name.as_ref().map_or("", |name| name.value).to_owned();
    if let Some(name) = name
        && !doubled("objects in this task", &name, names, problems)
    {
        names.push(name);
    }
    let kind = kind?;
    let (parameters, claims) = read_parameters(&section, kind, problems)?;
    let owner = format!("{}/{text}", within.task);
    check_claims(&section, &claims, &place, &owner, within, taken, problems);
    Some(ObjectConfig {
        name: text,
        kind: kind.name,
        step: step.map_or(1, |step| step.value as u8),
        parameters,
        claims,
        place: Place(place),
    })
}

fn find_kind<'k>(
    table: &At<&DeTable<'_>>,
    kinds: &'k [Kind],
    problems: &mut Problems,
) -> Option<&'k Kind> {
    let names = || kinds.iter().map(|kind| kind.name);
    let Some(value) = table.value.get("kind") else {
        let meant = table
            .value
            .keys()
            .find(|key| nearest(key.get_ref(), ["kind"]).is_some());
        if let Some(key) = meant {
            let problem = format!("{} has no key `{}`", schema::OBJECT.title, key.get_ref());
            problems.error(key.span(), problem, "did you mean `kind`?");
        } else {
            let remedy = format!("add `kind = \"...\"`: {}", either(names()));
            problems.error(table.span.clone(), "the object has no `kind`", remedy);
        }
        return None;
    };
    let written = value.get_ref().as_str();
    let found = kinds.iter().find(|kind| Some(kind.name) == written);
    if found.is_none() {
        let (problem, nearest) = match written {
            Some(word) => (
                format!("there is no kind of object `{word}`"),
                nearest(word, names()),
            ),
            None => ("`kind` must be text in quotes".to_owned(), None),
        };
        let remedy = match nearest {
            Some(meant) => format!("did you mean `{meant}`? The kinds are {}", listed(names())),
            None => format!("write {}", either(names())),
        };
        problems.error(value.span(), problem, remedy);
    }
    found
}

/// Everything but `name`, `kind` and `step`, and what the kind makes of it.
fn read_parameters(
    section: &Section<'_>,
    kind: &Kind,
    problems: &mut Problems,
) -> Option<(toml::Table, Claims)> {
    let mut parameters = toml::Table::new();
    for (key, value) in section.entries() {
        if !kind.parameters.contains(&key) {
            continue;
        }
        match plain_value(value) {
            Ok(value) => {
                parameters.insert(key.to_owned(), value);
            }
            Err(span) => {
                let remedy = "write a smaller number";
                problems.error(span, format!("a number in `{key}` is out of range"), remedy);
                return None;
            }
        }
    }
    if section.any_misspelt() {
        return None;
    }
    match (kind.check)(&parameters) {
        Ok(claims) => {
            for Remark {
                key,
                problem,
                remedy,
            } in &claims.remarks
            {
                let span = parameter_span(section, key).or_else(|| section.span());
                problems.push(Problem::warning(span, problem, remedy));
            }
            Some((parameters, claims))
        }
        Err(ParameterError {
            key,
            problem,
            remedy,
        }) => {
            let span = parameter_span(section, &key).or_else(|| section.span());
            problems.push(Problem::error(span, problem, remedy));
            None
        }
    }
}

/// Where a parameter's value stands; `interface.a` is the entry `a` of the table `interface`.
fn parameter_span(section: &Section<'_>, key: &str) -> Option<TextSpan> {
    if let Some(value) = section.value(key) {
        return Some(value.span());
    }
    let mut path = key.split('.');
    let mut value: &Spanned<DeValue<'_>> = section.value(path.next()?)?;
    for part in path {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(entries) => part.parse().ok().and_then(|at: usize| entries.get(at)),
            _ => None,
        };
        match inner {
            Some(inner) => value = inner,
            None => break,
        }
    }
    Some(value.span())
}

/// What objects need for themselves alone must be theirs alone, and be there on each node.
fn check_claims(
    section: &Section<'_>,
    claims: &Claims,
    place: &TextSpan,
    owner: &str,
    within: &Within<'_>,
    taken: &mut Vec<Taken>,
    problems: &mut Problems,
) {
    let of_object = claims.exclusive.iter().map(|claim| (claim, false));
    let of_task = claims.of_task.iter().map(|claim| (claim, true));
    for (claim, shared) in of_object.chain(of_task) {
        let sort = claim.split(' ').next().unwrap_or_default();
        let span = parameter_span(section, sort).unwrap_or_else(|| place.clone());
        let others = |first: &&Taken| !shared || first.task != within.task;
        let first = taken
            .iter()
            .filter(others)
            .find(|first| first.claim == *claim);
        if let Some(first) = first {
            let problem = format!("duplicate {claim}: claimed by {} and {owner}", first.owner);
            let remedy = match shared {
                true => format!("put both into one task, or give each its own {sort}"),
                false => format!("give each object its own {sort}, or remove one of the two"),
            };
            let problem = Problem::error(span, problem, remedy);
            problems.push(problem.and_at(first.span.clone(), format!("of {}", first.owner)));
        } else {
            taken.push(Taken {
                claim: claim.clone(),
                task: within.task.to_owned(),
                owner: owner.to_owned(),
                span,
            });
        }
    }
    check_interfaces(section, claims, place, owner, within, problems);
}

/// An address needs an interface on each node that may have it.
fn check_interfaces(
    section: &Section<'_>,
    claims: &Claims,
    place: &TextSpan,
    owner: &str,
    within: &Within<'_>,
    problems: &mut Problems,
) {
    for claim in &claims.addresses {
        for (name, _) in claim.interfaces.iter().filter(|(name, _)| name != "*") {
            let span = key_span(section, name).unwrap_or_else(|| place.clone());
            within.nodes.find(
                &At {
                    value: name.as_str(),
                    span,
                },
                problems,
            );
        }
        let span = parameter_span(section, "interface").unwrap_or_else(|| place.clone());
        for node in &within.nodes.list {
            let needed = within.task_nodes.contains(&node.id);
            if needed && claim.interface_on(&node.name).is_none() {
                let problem = format!("{owner} has no interface on node `{}`", node.name);
                let remedy = format!(
                    "add `{} = \"...\"`, or take the node out of the task's `nodes`",
                    node.name
                );
                problems.error(span.clone(), problem, remedy);
            }
        }
    }
}

/// Where a node's name stands as a key within one of the parameters.
fn key_span(section: &Section<'_>, name: &str) -> Option<TextSpan> {
    let mut tables = section
        .entries()
        .filter_map(|(_, value)| value.get_ref().as_table());
    tables
        .find_map(|table| table.get_key_value(name))
        .map(|(key, _)| key.span())
}
