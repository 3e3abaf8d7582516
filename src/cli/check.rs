//! `standfast check`: what is wrong with the configuration, and every time that follows from it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::{CheckArgs, Places};
use super::context::{Loaded, kinds, look, own_node, position, read_text};
use super::exit::{Exit, Failure};
use super::facts::{self, Facts};
use super::{table, words};
use crate::config::{Config, FenceAction, FenceConfig, Problem, Severity, render};

pub(super) fn run(places: &Places, args: &CheckArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let text = read_text(&places.config)?;
    let file = places.config.display().to_string();
    let config = match Config::parse(&text, &kinds()) {
        Ok(config) => config,
        Err(errors) => {
            if args.json {
                let report = json_report(&file, &text, None, errors.problems(), None);
                writeln!(out, "{report:#}")?;
            } else {
                let look = look(&io::stdout());
                write!(out, "{}", render(errors.problems(), &file, &text, look))?;
            }
            return Ok(Exit::Wrong);
        }
    };
    let loaded = Loaded { file, text, config };
    let mut problems = loaded.config.warnings().to_vec();
    let mut facts = None;
    if args.live {
        let node = own_node(places, &loaded.config)?;
        let (seen, found) = facts::look(&loaded, places, node);
        problems.extend(found);
        facts = Some((node.name.clone(), seen));
    }
    // Errors first; the order of the text stays within.
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    if args.json {
        let report = json_report(
            &loaded.file,
            &loaded.text,
            Some(&loaded.config),
            &problems,
            facts.as_ref(),
        );
        writeln!(out, "{report:#}")?;
    } else {
        print(&loaded, &problems, facts.as_ref(), out)?;
    }
    let errors = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    Ok(match (errors, problems.is_empty()) {
        (true, _) => Exit::Wrong,
        (false, false) if args.strict => Exit::Attention,
        (false, _) => Exit::Well,
    })
}

fn print(
    loaded: &Loaded,
    problems: &[Problem],
    facts: Option<&(String, Facts)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if !problems.is_empty() {
        let look = look(&io::stdout());
        writeln!(
            out,
            "{}",
            render(problems, &loaded.file, &loaded.text, look)
        )?;
    }
    let times = loaded.config.derived().into_iter();
    let times = times.map(|time| {
        [
            time.name,
            words::exactly(time.span),
            time.explanation.to_owned(),
        ]
    });
    write!(
        out,
        "{}",
        table::columns(["TIME", "IS", "WHAT IT MEANS"], times.collect())
    )?;
    writeln!(out)?;
    print_register(&loaded.config, out)?;
    print_fences(&loaded.config, out)?;
    match facts {
        Some((node, facts)) => print_facts(node, facts, out)?,
        None => writeln!(
            out,
            "Only the file was checked; `standfast check --live` compares it with this machine."
        )?,
    }
    let config = &loaded.config;
    let plural =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings): (Vec<_>, Vec<_>) = problems
        .iter()
        .partition(|problem| problem.severity == Severity::Error);
    let verdict = match (errors.len(), warnings.len()) {
        (0, 0) => "good".to_owned(),
        (0, warnings) => format!("good, with {}", plural(warnings, "warning")),
        (errors, _) => format!("not usable here: {}", plural(errors, "problem")),
    };
    writeln!(
        out,
        "{}: {verdict}; cluster {}, {}, {}, {}, revision {}",
        loaded.file,
        config.cluster().name,
        plural(config.nodes().len(), "node"),
        plural(config.links().len(), "link"),
        plural(config.tasks().len(), "task"),
        config.revision()
    )
}

/// What a register on several disks does without.
fn print_register(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let disks = config.disks().count();
    if disks < 2 {
        return Ok(());
    }
    let needed = disks / 2 + 1;
    writeln!(
        out,
        "The register is on {disks} disks and goes on while any {needed} of them answer; it is as \
         fast as the second fastest.\n"
    )
}

/// Who can be switched off, and through what.
fn print_fences(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    if config.fences().is_empty() {
        return Ok(());
    }
    let rows = config.fences().iter().map(|fence| {
        [
            fence.name.clone(),
            fence.level.to_string(),
            fenced_nodes(config, fence).join(", "),
            fence_action(fence).to_owned(),
            format!("{}, {} at most", fence.agent, words::exactly(fence.timeout)),
        ]
    });
    let heading = ["FENCE", "LEVEL", "SWITCHES", "ACTION", "THROUGH"];
    writeln!(out, "{}", table::columns(heading, rows.collect()))?;
    let bare = config.nodes().iter();
    let bare = bare.filter(|node| !config.fenced_nodes().contains(node.id));
    let bare: Vec<&str> = bare.map(|node| node.name.as_str()).collect();
    if bare.is_empty() {
        return Ok(());
    }
    writeln!(out, "Nothing can switch off {}.\n", bare.join(", "))
}

fn fenced_nodes(config: &Config, fence: &FenceConfig) -> Vec<String> {
    let nodes = fence.plugs.iter();
    let nodes = nodes.filter_map(|plug| config.node_by_id(plug.node));
    nodes.map(|node| node.name.clone()).collect()
}

fn fence_action(fence: &FenceConfig) -> &'static str {
    match fence.action {
        FenceAction::Off => "off",
        FenceAction::Reboot => "reboot",
    }
}

fn print_facts(node: &str, facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    let yes = |truth: bool| if truth { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        ["this machine is node".to_owned(), node.to_owned()],
        ["daemon runs".to_owned(), yes(facts.daemon_running)],
        ["secret can be used".to_owned(), yes(facts.secret_usable)],
        ["cgroup v2 mounted".to_owned(), yes(facts.cgroup2_mounted)],
    ];
    if let Some(present) = facts.watchdog_present {
        rows.push(["watchdog present".to_owned(), yes(present)]);
    }
    for disk in &facts.disks {
        let time = |micros: Option<u64>| match micros {
            Some(micros) => words::ms(micros as f64 / 1000.0),
            None => "not measured".to_owned(),
        };
        let size = words::bytes(disk.size_bytes);
        rows.push([format!("disk {}", disk.link), disk.device.clone()]);
        rows.push([
            "  size".to_owned(),
            format!("{size}, logical blocks of {} bytes", disk.logical_block),
        ]);
        rows.push(["  header".to_owned(), disk.header.clone()]);
        rows.push([
            "  99 % of transfers within".to_owned(),
            format!(
                "read {}, write {}",
                time(disk.read_us_p99),
                time(disk.write_us_p99)
            ),
        ]);
    }
    write!(out, "{}", table::rows(rows))?;
    if facts.daemon_running && !facts.disks.is_empty() {
        writeln!(
            out,
            "Writes are measured only while the daemon of this node is stopped."
        )?;
    }
    writeln!(out)
}

fn fences_json(config: &Config) -> Vec<Value> {
    let fences = config.fences().iter();
    let fence = |fence: &FenceConfig| {
        json!({
            "name": fence.name,
            "agent": fence.agent,
            "level": fence.level,
            "nodes": fenced_nodes(config, fence),
            "action": fence_action(fence),
        })
    };
    fences.map(fence).collect()
}

fn json_report(
    file: &str,
    text: &str,
    config: Option<&Config>,
    problems: &[Problem],
    facts: Option<&(String, Facts)>,
) -> Value {
    let problem = |problem: &Problem| {
        let place = position(problem, text);
        json!({
            "severity": match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "line": place.map(|(line, _)| line),
            "column": place.map(|(_, column)| column),
            "problem": problem.problem,
            "remedy": problem.remedy,
        })
    };
    let times = config.map(Config::derived).unwrap_or_default();
    let times = times.iter().map(|time| {
        json!({"name": time.name, "ms": time.span.as_ms_f64(), "explanation": time.explanation})
    });
    json!({
        "file": file,
        "ok": config.is_some() && problems.iter().all(|p| p.severity == Severity::Warning),
        "cluster": config.map(|config| config.cluster().name.clone()),
        "node": facts.map(|(node, _)| node.clone()),
        "revision": config.map(Config::revision),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "times": times.collect::<Vec<_>>(),
        "fences": config.map_or_else(Vec::new, fences_json),
        "facts": facts.map(|(_, facts)| facts),
    })
}
