//! Reads `[[fence]]`: devices through which a node can be switched off by the others.

use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::names::{absolute, doubled, read_name};
use super::parse::Nodes;
use super::problem::{Problem, Problems};
use super::reader::{At, Section, integer};
use super::schema;
use super::types::{FenceAction, FenceConfig, FenceOption, FencePlug, Secret};
use crate::model::{NODES_MAX, NodeId};
use crate::time::Span;

/// Most devices: two for each node.
pub const FENCES_MAX: usize = 2 * NODES_MAX;

/// Most bytes of a device's options together. They go through a pipe that holds more.
pub const OPTION_BYTES_MAX: usize = 16 * 1024;

/// Levels, as other cluster managers have them.
const LEVELS: RangeInclusive<i64> = 1..=9;

/// How long an agent may take for one action.
const TIMEOUT: RangeInclusive<Span> = Span::from_ms(1_000)..=Span::from_ms(600_000);
const TIMEOUT_DEFAULT: Span = Span::from_ms(60_000);

/// How often a device is tried.
const TEST: RangeInclusive<Span> = Span::from_ms(60_000)..=Span::from_ms(86_400_000);
const TEST_DEFAULT: Span = Span::from_ms(3_600_000);

/// Where agents lie that are named without a path.
const AGENTS: &str = "/usr/sbin/";

/// Options that are ours to give.
const OURS: [&str; 4] = ["action", "plug", "port", "nodename"];

/// Reads all devices.
pub(super) fn read(top: &Section<'_>, nodes: &Nodes, problems: &mut Problems) -> Vec<FenceConfig> {
    let tables = top.tables("fence", problems);
    if let Some(extra) = tables.get(FENCES_MAX) {
        let problem = format!("there are {} fences", tables.len());
        let remedy = format!("a cluster has at most {FENCES_MAX} of them: remove some");
        problems.error(extra.span.clone(), problem, remedy);
    }
    let mut names: Vec<At<&str>> = Vec::new();
    let mut fences = Vec::new();
    for table in tables.iter().take(FENCES_MAX) {
        let span = Some(table.span.clone());
        let section = Section::open(&schema::FENCE, span, table.value, problems);
        let name = read_name(&section, "fence", problems);
        let text = name.as_ref().map_or("", |name| name.value).to_owned();
        if let Some(name) = name
            && !doubled("fences", &name, &names, problems)
        {
            names.push(name);
        }
        let level = section.integer("level", LEVELS, problems);
        let timeout = section.duration("timeout", TIMEOUT, problems);
        let test = section.duration("test-every", TEST, problems);
        fences.push(FenceConfig {
            name: text,
            agent: read_agent(&section, problems),
            level: level.map_or(1, |level| level.value as u8),
            timeout: timeout.map_or(TIMEOUT_DEFAULT, |timeout| timeout.value),
            test_every: test.map_or(TEST_DEFAULT, |test| test.value),
            action: read_action(&section, problems),
            options: read_options(&section, problems),
            plugs: read_plugs(&section, nodes, problems),
        });
    }
    fences
}

fn read_agent(section: &Section<'_>, problems: &mut Problems) -> String {
    let Some(agent) = section.required_string("agent", problems) else {
        return String::new();
    };
    if agent.value.contains('/') {
        absolute("agent", &agent, problems);
        return agent.value.to_owned();
    }
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if agent.value.is_empty() || !agent.value.bytes().all(in_name) {
        let problem = format!("`{}` is not the name of an agent", agent.value);
        let remedy = format!("write a name in {AGENTS}, such as `fence_ipmilan`, or a whole path");
        problems.error(agent.span.clone(), problem, remedy);
    }
    format!("{AGENTS}{}", agent.value)
}

fn read_action(section: &Section<'_>, problems: &mut Problems) -> FenceAction {
    let Some(action) = section.string("action", problems) else {
        return FenceAction::Off;
    };
    match action.value {
        "off" => FenceAction::Off,
        "reboot" => FenceAction::Reboot,
        other => {
            let problem = format!("there is no action `{other}`");
            let remedy = "write `off`, or `reboot` to have the node switched on again";
            problems.error(action.span, problem, remedy);
            FenceAction::Off
        }
    }
}

fn read_options(section: &Section<'_>, problems: &mut Problems) -> Vec<FenceOption> {
    let Some(table) = section.table("options", problems) else {
        return Vec::new();
    };
    let mut options = Vec::new();
    for (key, value) in table.value {
        let name: &str = key.get_ref();
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(in_name) {
            let remedy = "an option's name is of letters, digits, `_` and `-`";
            problems.error(key.span(), format!("`{name}` is not an option"), remedy);
            continue;
        }
        if OURS.contains(&name) {
            let remedy = match name {
                "action" => "remove it, or write `action` beside `agent`",
                _ => "write `nodes`, or `plug = { a = \"1\" }`, beside `agent`",
            };
            let problem = format!("`{name}` is given by Standfast itself");
            problems.error(key.span(), problem, remedy);
            continue;
        }
        match option_text(value.get_ref()) {
            Some(text) => options.push(FenceOption {
                name: name.to_owned(),
                value: Secret(text),
            }),
            None => {
                let problem = format!("the option `{name}` is not one line");
                let remedy = "write text in quotes without a line end, a number, or true or false";
                problems.error(value.span(), problem, remedy);
            }
        }
    }
    let bytes = |option: &FenceOption| option.name.len() + option.value.0.len() + 2;
    if options.iter().map(bytes).sum::<usize>() > OPTION_BYTES_MAX {
        let remedy = format!("{OPTION_BYTES_MAX} bytes are enough for every agent");
        problems.error(table.span, "the options are too long", remedy);
    }
    options
}

/// The value as an agent reads it; `None` for what cannot stand in one line.
fn option_text(value: &DeValue<'_>) -> Option<String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(truth) => u8::from(*truth).to_string(),
        DeValue::Integer(_) => integer(value)?.to_string(),
        _ => return None,
    };
    let one_line = !text.contains(['\n', '\r', '\0']);
    one_line.then_some(text)
}

/// Which nodes it switches off, each with what the device calls it.
fn read_plugs(section: &Section<'_>, nodes: &Nodes, problems: &mut Problems) -> Vec<FencePlug> {
    let plug = section.value("plug");
    let table = plug.and_then(|plug| plug.get_ref().as_table());
    if let (Some(plug), Some(_)) = (plug.filter(|_| table.is_some()), section.value("nodes")) {
        let remedy = "remove `nodes`: the plugs name them";
        let problem = "`nodes` and a `plug` for each node";
        problems.error(plug.span(), problem, remedy);
        return Vec::new();
    }
    if let Some(table) = table {
        return plugs_of_table(section, table, nodes, problems);
    }
    let plug = section.string("plug", problems);
    let written = section.strings("nodes", problems);
    let Some(written) = written.filter(|written| !written.value.is_empty()) else {
        if !section.any_misspelt() {
            let problem = "the fence names no node that it switches off";
            let remedy = "add `nodes = [\"a\"]`, or `plug = { a = \"1\", b = \"2\" }`";
            problems.error(section.span(), problem, remedy);
        }
        return Vec::new();
    };
    if let (Some(plug), [_, second, ..]) = (&plug, written.value.as_slice()) {
        let remedy = "write `plug = { a = \"1\", b = \"2\" }` instead of both";
        let problem = Problem::error(plug.span.clone(), "one plug for several nodes", remedy);
        problems.push(problem.and_at(second.span.clone(), "the second one"));
    }
    let mut plugs: Vec<FencePlug> = Vec::new();
    for name in &written.value {
        let Some(node) = nodes.find(name, problems) else {
            continue;
        };
        let plug = plug.as_ref().map(|plug| plug.value.to_owned());
        if !plugs.iter().any(|known| known.node == node) {
            plugs.push(FencePlug { node, plug });
        }
    }
    plugs
}

fn plugs_of_table(
    section: &Section<'_>,
    table: &DeTable<'_>,
    nodes: &Nodes,
    problems: &mut Problems,
) -> Vec<FencePlug> {
    let mut plugs = Vec::new();
    for (key, value) in table {
        let name = At {
            value: key.get_ref().as_ref(),
            span: key.span(),
        };
        let node: Option<NodeId> = nodes.find(&name, problems);
        match (node, option_text(value.get_ref())) {
            (Some(node), Some(plug)) => plugs.push(FencePlug {
                node,
                plug: Some(plug),
            }),
            (_, None) => {
                section.wrong_type::<()>("plug", value, "text in quotes for each node", problems);
            }
            (None, Some(_)) => {}
        }
    }
    plugs.sort_by_key(|plug| plug.node);
    plugs
}
