//! Known failures of clusters, told one by one: `tests/scenarios/NAME` holds what happened to
//! others (`README.md`), a cluster, a script, and the log as it must be, byte for byte.
//!
//! `BLESS=1` writes the logs anew; read the difference before it is committed. `STORY=NAME` runs
//! one and prints it.

use std::fs;
use std::path::{Path, PathBuf};

use standfast::config::{Config, LinkKind};

use crate::fencing::Fences;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::script::{Act, Condition, Script, When};
use crate::strike::Names;
use crate::swarm::silence_expected_panics;
use crate::world::World;

/// Nothing lasts longer in a story.
const STORY_MAX: u64 = 3_600_000_000_000;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&root).expect("tests/scenarios is there");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// The cluster of a configuration, quiet.
fn plan(config: &Config, script: &Script) -> Plan {
    let (nodes, tasks) = (config.nodes().len(), config.tasks().len());
    let networks = config.links().iter();
    let networks = networks.filter(|link| matches!(link.kind, LinkKind::Ethernet { .. }));
    let names = Names {
        nodes: config
            .nodes()
            .iter()
            .map(|node| node.name.clone())
            .collect(),
        tasks: config
            .tasks()
            .iter()
            .map(|task| task.name.clone())
            .collect(),
    };
    let required = config.tasks().iter().filter(|task| task.fence_required);
    let required = required.fold(0, |set, task| set | 1 << task.index.index());
    let fenced = !config.fences().is_empty();
    Plan {
        networks: networks.count(),
        disks: config.disks().count(),
        names,
        reservations: script.reservations,
        compare_and_write: script.compare_and_write,
        fences: fenced.then_some(Fences {
            required,
            fails: 0,
            slow: 0,
            takes: 1_000_000_000,
            on_again: None,
        }),
        ..Plan::calm(nodes, tasks, config.timing().detect.as_ms())
    }
}

impl World {
    fn holds(&self, condition: &Condition) -> bool {
        let runs = |node: usize, task: usize| {
            let node = &self.nodes[node];
            node.held[task].running && !node.below_the_guard(self.now)
        };
        let listed = |node: usize| {
            let (id, life) = (self.nodes[node].id, self.nodes[node].incarnation);
            self.checks
                .newest()
                .is_some_and(|view| view.grants(id, life))
        };
        match *condition {
            Condition::On { task, node } => {
                self.nodes[node].held[task].whole
                    && (0..self.nodes.len()).all(|other| other == node || !runs(other, task))
            }
            Condition::Nowhere { task } => (0..self.nodes.len()).all(|node| !runs(node, task)),
            Condition::In { node } => listed(node),
            Condition::Out { node } => !listed(node),
            Condition::AllWell => self.is_well().is_ok(),
        }
    }

    fn act(&mut self, act: &Act, text: &str) -> Result<(), String> {
        match act {
            Act::Strike(strike) => {
                self.strike(strike.clone());
                self.judge_status();
                Ok(())
            }
            Act::Expect(condition, within) => {
                let begun = self.now;
                if self.run_while(*within, |world| !world.holds(condition)) {
                    let took = self.now - begun;
                    let text = text.split(" within").next().unwrap_or(text).to_owned();
                    self.tell(None, |_| format!("= {text}, after {} us", took / 1_000));
                    return Ok(());
                }
                Err(format!("in vain: {text}"))
            }
            Act::Always(condition, span) => {
                let broken = self.run_while(*span, |world| world.holds(condition));
                let end = text.to_owned();
                if broken {
                    return Err(format!("not so any more: {text}"));
                }
                self.tell(None, |_| format!("= {end}"));
                Ok(())
            }
        }
    }
}

/// Plays a script; the log, and what went wrong.
fn play(config: &Config, script: &Script) -> (Vec<String>, Result<(), String>) {
    let plan = plan(config, script);
    let mut world = World::new(plan, Rng::new(script.seed), false);
    world.task_nodes = config
        .tasks()
        .iter()
        .map(|task| task.nodes.clone())
        .collect();
    world.log.story = Some(Vec::new());
    for line in &script.lines {
        let end = match line.when {
            When::At(moment) => moment,
            When::After(time) => world.now + time,
        };
        assert!(
            end >= world.now && end < STORY_MAX,
            "{} comes too late",
            line.text
        );
        world.run_until(end);
        world.judge_status();
        if let Err(error) = world.act(&line.act, &line.text) {
            world.tell(None, |_| format!("! {error}"));
            return (world.log.story.take().unwrap_or_default(), Err(error));
        }
    }
    (world.log.story.take().unwrap_or_default(), Ok(()))
}

fn read(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Plays the story of a folder and compares.
fn story(folder: &Path, bless: bool, print: bool) -> Result<(), String> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let text = read(folder, "cluster.toml");
    let config = Config::parse(&text, &standfast::object::kind_rows())
        .map_err(|errors| format!("{name}: {errors:?}"))?;
    let script = Script::parse(&read(folder, "script"), &config)
        .map_err(|error| format!("{name}: {error}"))?;
    if read(folder, "README.md").len() < 80 {
        return Err(format!("{name}: the README tells nothing"));
    }
    let (log, end) = play(&config, &script);
    let log = log.join("\n") + "\n";
    if print {
        println!("{log}");
    }
    end.map_err(|error| format!("{name}: {error}\n{log}"))?;
    if bless {
        fs::write(folder.join("expected.log"), &log).map_err(|error| error.to_string())?;
        return Ok(());
    }
    let expected = read(folder, "expected.log");
    if log == expected {
        return Ok(());
    }
    let differs = log
        .lines()
        .zip(expected.lines())
        .find(|(new, old)| new != old);
    Err(format!("{name}: the log differs, first here: {differs:#?}"))
}

#[test]
fn scenarios() {
    silence_expected_panics();
    let bless = std::env::var_os("BLESS").is_some();
    let only = std::env::var("STORY").ok();
    let mut failed = Vec::new();
    let mut told = 0;
    for folder in folders() {
        if only.as_ref().is_some_and(|name| !folder.ends_with(name)) {
            continue;
        }
        told += 1;
        if let Err(error) = story(&folder, bless, only.is_some()) {
            failed.push(error);
        }
    }
    assert!(told >= 40 || only.is_some(), "{told} stories");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
