//! `script`: programs that start, stop and probe something this daemon cannot hold by itself.
//!
//! A probe runs beside the worker: its end is an event, its deadline a timer. A late probe is no
//! failure unless it repeats and this host was not stalled meanwhile.
//!
//! Only the start runs in the task's control group, with what it leaves there. A node without a
//! right to the task, such as one that has just booted, has to find out whether the service runs,
//! and to stop it; in that group the guard would kill stop and probe within milliseconds, so they
//! run beside it. What they leave is killed when they have ended.

use std::time::{Duration, Instant};

use toml::Table;

use super::parameter::{command, duration, missing, wrong};
use super::program::{Ending, Group, Plan, Program, group_beside, output_of, run};
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Urgency, Watch, Watched,
    sentence,
};
use crate::config::ObjectConfig;
use crate::config::kind::{Claims, Kind, ParameterError};
use crate::engine::Class;

/// The row.
pub(super) const KIND: ObjectKind = ObjectKind {
    row: Kind {
        name: "script",
        summary: "programs that start, stop and probe a service",
        parameters: &[
            "start",
            "stop",
            "probe",
            "start_within",
            "stop_within",
            "probe_within",
            "interval",
        ],
        example: r#"[[task.object]]
name = "service"
kind = "script"
step = 2
start = ["/bin/touch", "/run/standfast-example"]
stop = ["/bin/rm", "-f", "/run/standfast-example"]
probe = ["/bin/sh", "-c", "test -e /run/standfast-example || exit 3"]
# The probe's exit code: 0 runs, 3 or 7 stopped, anything else failed.
start_within = "30s"                       # the default
stop_within = "30s"                        # the default; then KILL of what it left
probe_within = "10s"                       # the default
interval = "10s"                           # the default
"#,
        check: |parameters| parse(parameters).map(|spec| claims(&spec)),
    },
    build,
    survey: |_| Vec::new(),
};

/// How long a start or stop may take, if nothing is said.
const ACT_WITHIN: Duration = Duration::from_secs(30);
/// How long a probe may take, if nothing is said.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
/// From one probe to the next, if nothing is said.
const INTERVAL: Duration = Duration::from_secs(10);
/// Shortest interval: forks cost the host something.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How long processes may take to die after SIGKILL.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// How long what a probe has left behind may take to die.
const CLEAR_WITHIN: Duration = Duration::from_secs(1);
/// Late probes in a row that count as a failure.
const LATE_MAX: u32 = 3;

struct Spec {
    start: Vec<String>,
    stop: Vec<String>,
    probe: Option<Vec<String>>,
    start_within: Duration,
    stop_within: Duration,
    probe_within: Duration,
    interval: Duration,
}

fn parse(parameters: &Table) -> Result<Spec, ParameterError> {
    let start = command(parameters, "start")?;
    let stop = command(parameters, "stop")?;
    let interval = duration(parameters, "interval")?.unwrap_or(INTERVAL);
    if interval < INTERVAL_MIN {
        let problem = "probing that often would cost more than it shows";
        return Err(wrong("interval", problem, "write 100ms or more"));
    }
    Ok(Spec {
        start: start.ok_or_else(|| missing("start", "[\"/usr/local/bin/service\", \"start\"]"))?,
        stop: stop.ok_or_else(|| missing("stop", "[\"/usr/local/bin/service\", \"stop\"]"))?,
        probe: command(parameters, "probe")?,
        start_within: duration(parameters, "start_within")?.unwrap_or(ACT_WITHIN),
        stop_within: duration(parameters, "stop_within")?.unwrap_or(ACT_WITHIN),
        probe_within: duration(parameters, "probe_within")?.unwrap_or(PROBE_WITHIN),
        interval,
    })
}

fn claims(spec: &Spec) -> Claims {
    // A start probes before and after, a stop probes after.
    let probe = spec
        .probe
        .as_ref()
        .map_or(Duration::ZERO, |_| spec.probe_within);
    let start = spec.start_within + probe * 2;
    let stop = spec.stop_within + KILL_WITHIN + probe;
    Claims {
        addresses: Vec::new(),
        exclusive: Vec::new(),
        of_task: Vec::new(),
        fenced: None,
        remarks: Vec::new(),
        start_ms_max: start.as_millis() as u64,
        stop_ms_max: stop.as_millis() as u64,
    }
}

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let spec = parse(&config.parameters).expect("the configuration was checked");
    let group = Group::new(context.cgroup.join(&config.name), context.fenced);
    let beside = Group::new(group_beside(&config.name, &context), context.fenced);
    Box::new(Script {
        name: config.name.clone(),
        spec,
        context,
        group,
        beside,
        started: false,
        probing: Probing::Idle,
        late: 0,
    })
}

/// Where the repeated probe stands.
enum Probing {
    /// Not watched.
    Idle,
    /// The next one begins then.
    Waiting { until: Instant },
    /// One is under way; it is late after the deadline.
    Running { program: Program, deadline: Instant },
}

/// One service behind programs.
struct Script {
    name: String,
    spec: Spec,
    context: BuildContext,
    /// Of the start.
    group: Group,
    /// Of stop and probe.
    beside: Group,
    /// All that is known where there is no probe.
    started: bool,
    probing: Probing,
    late: u32,
}

impl Object for Script {
    fn probe(&mut self, context: &Context<'_>) -> Probe {
        let probe = self.ask(context, Urgency::Forced);
        self.started = probe == Probe::Running;
        if self.started {
            self.wait_interval();
        }
        probe
    }

    fn start(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        self.end_probe();
        if self.spec.probe.is_none() && self.started {
            return Ok(());
        }
        if self.spec.probe.is_some() && self.ask(context, Urgency::Stop) == Probe::Running {
            self.started = true;
            self.wait_interval();
            return Ok(());
        }
        let until = deadline.min(Instant::now() + self.spec.start_within);
        let plan = self.plan(&self.spec.start, context);
        run_to_success(&plan, context, Urgency::Stop, until)?;
        self.started = true;
        match self.ask(context, Urgency::Stop) {
            Probe::Running => {}
            Probe::Stopped => return Err(unexpected("the probe says stopped after the start")),
            Probe::Late => return Err(ObjectError::late("the probe after the start did not end")),
            Probe::Failed { reason } => return Err(unexpected(reason)),
        }
        self.wait_interval();
        Ok(())
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        forced: bool,
    ) -> Result<(), ObjectError> {
        self.end_probe();
        // The stop program runs even when forced: what it stops may live outside the group.
        let patience = if forced {
            self.spec.stop_within / 4
        } else {
            self.spec.stop_within
        };
        let until = deadline.min(Instant::now() + patience);
        let plan = self.plan_beside(&self.spec.stop, context);
        let stopped = run_to_success(&plan, context, Urgency::Forced, until);
        let beside = self.beside.end(deadline);
        self.group.end(deadline)?;
        beside?;
        if self.spec.probe.is_none() {
            stopped?;
        } else {
            // A stop counts by what the probe says, not by the stop program's exit code.
            match self.ask(context, Urgency::Forced) {
                Probe::Stopped => {}
                Probe::Running => return Err(unexpected("the probe says running after the stop")),
                Probe::Late => {
                    return Err(ObjectError::late("the probe after the stop did not end"));
                }
                Probe::Failed { reason } => {
                    let problem = match stopped {
                        Ok(()) => format!("after the stop {reason}"),
                        Err(error) => format!("{}; after it {reason}", sentence(&error)),
                    };
                    return Err(unexpected(problem));
                }
            }
        }
        self.started = false;
        self.group.remove();
        Ok(())
    }

    fn watch(&self) -> Watch<'_> {
        match &self.probing {
            Probing::Idle => Watch::default(),
            Probing::Waiting { until } => Watch {
                descriptor: None,
                other: None,
                at: Some(*until),
            },
            Probing::Running { program, deadline } => Watch {
                descriptor: Some(program.descriptor()),
                other: None,
                at: Some(*deadline),
            },
        }
    }

    fn look(&mut self, context: &Context<'_>) -> Watched {
        let now = Instant::now();
        match &mut self.probing {
            Probing::Idle => Watched::Fine,
            Probing::Waiting { until } if now < *until => Watched::Fine,
            Probing::Waiting { .. } => self.begin_probe(context),
            Probing::Running { program, deadline } => match program.ended() {
                Some(ending) => self.judge(ending),
                None if now >= *deadline => {
                    let lag = now.saturating_duration_since(*deadline);
                    self.count_late(lag)
                }
                None => Watched::Fine,
            },
        }
    }
}

impl Script {
    fn plan<'a>(&'a self, command: &'a [String], context: &Context<'_>) -> Plan<'a> {
        Plan::new(&self.name, command, &self.context, context.epoch)
    }

    fn plan_beside<'a>(&'a self, command: &'a [String], context: &Context<'_>) -> Plan<'a> {
        self.plan(command, context).beside(&self.context)
    }

    /// Kills what a probe has left behind. That it does not die at once is seen when the service is
    /// stopped.
    fn clear(&self) {
        let _ = self.beside.end(Instant::now() + CLEAR_WITHIN);
    }

    /// One probe, waited for. Without a probe program: whether it was started and not stopped.
    fn ask(&mut self, context: &Context<'_>, urgency: Urgency) -> Probe {
        self.end_probe();
        let Some(command) = &self.spec.probe else {
            return match (self.started, self.group.is_populated()) {
                (true, _) | (false, Ok(true)) => Probe::Running,
                (false, Ok(false)) => Probe::Stopped,
                (false, Err(error)) => error.into(),
            };
        };
        let deadline = Instant::now() + self.spec.probe_within;
        let ended = run(
            &self.plan_beside(command, context),
            context,
            urgency,
            deadline,
        );
        self.clear();
        match ended {
            Ok(ending) => self.meaning(ending),
            Err(error) => error.into(),
        }
    }

    fn meaning(&self, ending: Ending) -> Probe {
        match ending.code() {
            Some(0) => Probe::Running,
            Some(3 | 7) => Probe::Stopped,
            Some(_) | None => {
                let output = output_of(&self.name, &self.context);
                Probe::Failed {
                    reason: format!("its probe {}", ending.with_last_line(&output)),
                }
            }
        }
    }

    fn begin_probe(&mut self, context: &Context<'_>) -> Watched {
        let Some(command) = &self.spec.probe else {
            self.probing = Probing::Idle;
            return Watched::Fine;
        };
        match self.plan_beside(command, context).spawn() {
            Ok(program) => {
                let deadline = Instant::now() + self.spec.probe_within;
                self.probing = Probing::Running { program, deadline };
                Watched::Fine
            }
            Err(error) => {
                self.wait_interval();
                let text = format!("the probe could not be started: {}", sentence(&error));
                Watched::Note {
                    class: Class::Warning,
                    text,
                }
            }
        }
    }

    fn judge(&mut self, ending: Ending) -> Watched {
        self.late = 0;
        self.clear();
        self.wait_interval();
        match self.meaning(ending) {
            Probe::Running | Probe::Late => Watched::Fine,
            Probe::Stopped => {
                self.probing = Probing::Idle;
                Watched::Broken {
                    reason: "its probe says it has stopped".to_owned(),
                }
            }
            Probe::Failed { reason } => {
                self.probing = Probing::Idle;
                Watched::Broken { reason }
            }
        }
    }

    /// `lag` is how late this thread came to see the deadline: the host's own stall, not the
    /// service's.
    fn count_late(&mut self, lag: Duration) -> Watched {
        self.end_probe();
        self.wait_interval();
        if lag > self.context.detect.to_std() {
            let ms = lag.as_millis();
            let text = format!(
                "a probe of {} was late, but this host stalled {ms} ms",
                self.name
            );
            return Watched::Note {
                class: Class::Warning,
                text,
            };
        }
        self.late += 1;
        if self.late >= LATE_MAX {
            self.late = 0;
            self.probing = Probing::Idle;
            let within = self.spec.probe_within.as_millis();
            let reason = format!("{LATE_MAX} probes in a row took longer than {within} ms");
            return Watched::Broken { reason };
        }
        let text = format!(
            "a probe of {} was late ({} of {LATE_MAX})",
            self.name, self.late
        );
        Watched::Note {
            class: Class::Warning,
            text,
        }
    }

    fn wait_interval(&mut self) {
        self.probing = match self.spec.probe {
            Some(_) => Probing::Waiting {
                until: Instant::now() + self.spec.interval,
            },
            None => Probing::Idle,
        };
    }

    /// Ends a probe that is under way; what it would have said is of no use any more.
    fn end_probe(&mut self) {
        if let Probing::Running { program, .. } = &mut self.probing {
            let _ = program.signal(standfast_sys::process::Signal::SIGKILL);
            let soon = Instant::now() + Duration::from_secs(1);
            let _ = super::wait_for(&[program.descriptor()], Some(soon));
            let _ = program.ended();
            self.clear();
        }
        self.probing = Probing::Idle;
    }
}

fn run_to_success(
    plan: &Plan<'_>,
    context: &Context<'_>,
    urgency: Urgency,
    until: Instant,
) -> Result<(), ObjectError> {
    let ending = run(plan, context, urgency, until)?;
    if ending.code() == Some(0) {
        Ok(())
    } else {
        Err(plan.failed(&ending))
    }
}

fn unexpected(problem: impl Into<String>) -> ObjectError {
    ObjectError::Unexpected(problem.into())
}
