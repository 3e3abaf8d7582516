//! `process`: a program that stays in the foreground.
//!
//! It runs in a control group of its own. Its death is an event, seen within a millisecond whether
//! or not this runner is its parent: an earlier runner's process is adopted by the process id and
//! start time that were written down, so that replacing the runner leaves no gap.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use standfast_sys::process::Signal;
use toml::{Table, Value};

use super::parameter::{command, duration, missing, only, path, text, wrong};
use super::program::{Group, Plan, Program, bound_output, output_of, run};
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Urgency, Watch, Watched, Woke,
};
use crate::config::ObjectConfig;
use crate::config::kind::{Claims, Kind, ParameterError};

/// The row.
pub(super) const KIND: ObjectKind = ObjectKind {
    row: Kind {
        name: "process",
        summary: "a program that stays in the foreground",
        parameters: &[
            "command",
            "directory",
            "environment",
            "user",
            "ready",
            "stop_signal",
            "stop_within",
        ],
        example: r#"[[task.object]]
name = "server"
kind = "process"
step = 2
command = ["/bin/sleep", "infinity"]
directory = "/"                            # the default
environment = { MODE = "active" }          # beside STANDFAST_TASK, _NODE and _EPOCH
user = "root"                              # the default
ready = { program = ["/bin/true"], within = "5s" }    # without it: ready when started
stop_signal = "TERM"                       # the default
stop_within = "5s"                         # the default; then KILL
"#,
        check: |parameters| parse(parameters).map(|spec| claims(&spec)),
    },
    build,
    survey: |_| Vec::new(),
};

/// How long a program may take to be ready, if nothing is said.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to stop politely, if nothing is said.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to die after SIGKILL.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// Longest time for a fork and exec on a loaded host.
const SPAWN_WITHIN: Duration = Duration::from_secs(2);
/// Between the first two tries of the program that tells readiness; doubled from one to the next.
const READY_AGAIN: Duration = Duration::from_millis(5);
/// Longest time between two tries.
const READY_AGAIN_MAX: Duration = Duration::from_millis(50);
/// Between two looks at the size of the output.
const OUTPUT_EVERY: Duration = Duration::from_secs(10);
/// Most variables of the environment.
const VARIABLES_MAX: usize = 64;

struct Spec {
    command: Vec<String>,
    directory: Option<PathBuf>,
    environment: Vec<(String, String)>,
    user: Option<String>,
    ready: Option<(Vec<String>, Duration)>,
    stop_signal: Signal,
    stop_within: Duration,
}

fn parse(parameters: &Table) -> Result<Spec, ParameterError> {
    let program = command(parameters, "command")?;
    Ok(Spec {
        command: program.ok_or_else(|| missing("command", "[\"/usr/bin/program\"]"))?,
        directory: path(parameters, "directory", "\"/srv/data\"")?,
        environment: environment(parameters)?,
        user: text(parameters, "user", "\"www-data\"")?.map(str::to_owned),
        ready: ready(parameters)?,
        stop_signal: stop_signal(parameters)?,
        stop_within: duration(parameters, "stop_within")?.unwrap_or(STOP_WITHIN),
    })
}

fn environment(parameters: &Table) -> Result<Vec<(String, String)>, ParameterError> {
    let example = "such as environment = { MODE = \"active\" }";
    let Some(value) = parameters.get("environment") else {
        return Ok(Vec::new());
    };
    let Value::Table(table) = value else {
        return Err(wrong(
            "environment",
            "`environment` must be a table",
            example,
        ));
    };
    if table.len() > VARIABLES_MAX {
        let problem = format!("there are more than {VARIABLES_MAX} variables");
        return Err(wrong("environment", problem, "read the rest from a file"));
    }
    let variable = |(name, value): (&String, &Value)| match value.as_str() {
        Some(value) if usable_variable(name, value) => Ok((name.clone(), value.to_owned())),
        Some(_) | None => {
            let problem = format!("`{name}` must be a variable's name, and its value text");
            Err(wrong(&format!("environment.{name}"), problem, example))
        }
    };
    table.iter().map(variable).collect()
}

fn usable_variable(name: &str, value: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(letters) && !name.starts_with("STANDFAST_") && !value.contains('\0')
}

fn ready(parameters: &Table) -> Result<Option<(Vec<String>, Duration)>, ParameterError> {
    let example = "such as ready = { program = [\"/usr/bin/check\"], within = \"5s\" }";
    match parameters.get("ready") {
        None => Ok(None),
        Some(Value::Table(table)) => {
            only(table, "ready", &["program", "within"])?;
            let nested = |mut error: ParameterError| {
                error.key = format!("ready.{}", error.key);
                error
            };
            let program = command(table, "program").map_err(nested)?;
            let program = program.ok_or_else(|| wrong("ready", "`program` is missing", example))?;
            let within = duration(table, "within")
                .map_err(nested)?
                .unwrap_or(READY_WITHIN);
            Ok(Some((program, within)))
        }
        Some(_) => Err(wrong("ready", "`ready` must be a table", example)),
    }
}

fn stop_signal(parameters: &Table) -> Result<Signal, ParameterError> {
    let Some(name) = text(parameters, "stop_signal", "\"TERM\"")? else {
        return Ok(Signal::SIGTERM);
    };
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    Signal::from_str(&format!("SIG{bare}")).map_err(|_| {
        let remedy = "such as stop_signal = \"TERM\", \"INT\" or \"QUIT\"";
        wrong(
            "stop_signal",
            format!("there is no signal `{name}`"),
            remedy,
        )
    })
}

fn claims(spec: &Spec) -> Claims {
    let ready = spec
        .ready
        .as_ref()
        .map_or(Duration::ZERO, |(_, within)| *within);
    Claims {
        addresses: Vec::new(),
        exclusive: Vec::new(),
        of_task: Vec::new(),
        fenced: None,
        remarks: Vec::new(),
        start_ms_max: (SPAWN_WITHIN + ready).as_millis() as u64,
        stop_ms_max: (spec.stop_within + KILL_WITHIN).as_millis() as u64,
    }
}

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let spec = parse(&config.parameters).expect("the configuration was checked");
    let group = Group::new(context.cgroup.join(&config.name), context.fenced);
    Box::new(Process {
        name: config.name.clone(),
        spec,
        context,
        group,
        program: None,
        look_at: None,
    })
}

/// One program.
struct Process {
    name: String,
    spec: Spec,
    context: BuildContext,
    group: Group,
    program: Option<Program>,
    look_at: Option<Instant>,
}

impl Object for Process {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        if self.is_running() || self.adopt() {
            self.look_at = Some(Instant::now() + OUTPUT_EVERY);
            return Probe::Running;
        }
        match self.group.is_populated() {
            Ok(false) => Probe::Stopped,
            Ok(true) => {
                let command = &self.spec.command[0];
                Probe::Failed {
                    reason: format!("{command} has ended, but left processes behind"),
                }
            }
            Err(error) => error.into(),
        }
    }

    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        if self.is_running() || self.adopt() {
            return Ok(());
        }
        // What an earlier life left behind would share files and ports with the new one.
        self.group.end(deadline)?;
        let program = self.plan(&self.spec.command, context.epoch).spawn()?;
        self.remember(program.pid())?;
        self.program = Some(program);
        self.look_at = Some(Instant::now() + OUTPUT_EVERY);
        self.await_ready(context, deadline)
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.look_at = None;
        if self.program.is_none() {
            self.adopt();
        }
        if context.is_polite(forced)
            && let Some(program) = &self.program
        {
            program.signal(self.spec.stop_signal)?;
            let until = deadline.min(Instant::now() + self.spec.stop_within);
            self.group
                .wait_empty(Some((context, Urgency::Forced)), until)?;
        }
        self.group.end(deadline)?;
        if let Some(program) = self.program.take() {
            program.collect();
        }
        let _ = fs::remove_file(self.pid_file());
        Ok(())
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            descriptor: self.program.as_ref().map(Program::descriptor),
            other: None,
            at: self.look_at,
        }
    }

    fn look(&mut self, _context: &Context<'_>) -> Watched {
        let output = output_of(&self.name, &self.context);
        if let Some(ending) = self.program.as_mut().and_then(Program::ended) {
            self.look_at = None;
            let command = &self.spec.command[0];
            return Watched::Broken {
                reason: format!("{command} {}", ending.with_last_line(&output)),
            };
        }
        if self.look_at.is_some_and(|at| Instant::now() >= at) {
            bound_output(&output);
            self.look_at = Some(Instant::now() + OUTPUT_EVERY);
        }
        Watched::Fine
    }
}

impl Process {
    fn is_running(&mut self) -> bool {
        self.program
            .as_mut()
            .is_some_and(|program| program.ended().is_none())
    }

    fn plan<'a>(&'a self, command: &'a [String], epoch: u32) -> Plan<'a> {
        Plan::new(&self.name, command, &self.context, epoch)
            .directory(self.spec.directory.as_deref())
            .user(self.spec.user.as_deref())
            .environment(&self.spec.environment)
    }

    fn await_ready(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        let Some((command, within)) = self.spec.ready.clone() else {
            return self.still_runs(context.epoch);
        };
        let until = deadline.min(Instant::now() + within);
        let mut again = READY_AGAIN;
        loop {
            let plan = self.plan(&command, context.epoch);
            let ready = match run(&plan, context, Urgency::Stop, until) {
                Ok(ending) => ending.code() == Some(0),
                Err(ObjectError::Late { .. }) => false,
                Err(error) => return Err(error),
            };
            self.still_runs(context.epoch)?;
            if ready {
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!("{} was not ready", self.spec.command[0]);
                return Err(ObjectError::late(what));
            }
            let program = self.program.as_ref().map(Program::descriptor);
            let pause = until.min(Instant::now() + again);
            again = READY_AGAIN_MAX.min(again * 2);
            if context.wait(program.as_slice(), Urgency::Stop, pause) == Woke::Cancelled {
                return Err(ObjectError::Cancelled);
            }
        }
    }

    fn still_runs(&mut self, epoch: u32) -> Result<(), ObjectError> {
        match self.program.as_mut().and_then(Program::ended) {
            None => Ok(()),
            Some(ending) => Err(self.plan(&self.spec.command, epoch).failed(&ending)),
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.context.directory.join(format!("{}.pid", self.name))
    }

    /// Writes the process down for the next runner. Written beside and renamed: never half a line.
    fn remember(&self, pid: i32) -> Result<(), ObjectError> {
        let path = self.pid_file();
        let beside = path.with_extension("pid.new");
        let line = format!("{pid} {}\n", start_time(pid).unwrap_or(0));
        fs::write(&beside, line)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(ObjectError::file(format!("write {}", path.display())))
    }

    /// Takes over what an earlier runner started: the same process id, the same start time, and
    /// still in the object's group.
    fn adopt(&mut self) -> bool {
        let Ok(line) = fs::read_to_string(self.pid_file()) else {
            return false;
        };
        let mut words = line.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(pid), Some(started)) = (number(), number()) else {
            return false;
        };
        let Ok(pid) = i32::try_from(pid) else {
            return false;
        };
        let Some(mut program) = Program::adopt(pid) else {
            return false;
        };
        let same = start_time(pid) == Some(started) && self.group.contains(pid);
        if !same || program.ended().is_some() {
            return false;
        }
        self.program = Some(program);
        true
    }
}

/// Clock ticks from boot to the start of the process: field 22 of proc_pid_stat(5). The second
/// field may contain anything, blanks and parentheses included.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}
