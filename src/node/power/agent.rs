//! One call of a fence agent: options on its standard input, an exit code, and what it said.
//!
//! The interface is that of the fence-agents project (`FenceAgentAPI.md`): one `name=value` a line,
//! the end of the input ends them, `action` says what is wanted. Only the exit code counts, and
//! only as the action defines it; an agent that does not end in time has failed, and is killed with
//! everything it has started.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use standfast_sys::process::PidFd;

use crate::config::FenceOption;
use crate::object::{Cancel, Urgency, Woke, wait_for};

/// What is kept of an agent's output: its end.
const OUTPUT_MAX: usize = 4 * 1024;

/// What a pipe holds (pipe(7)).
const PIPE_BYTES: usize = 64 * 1024;

/// Longest part of the last line that is quoted.
const QUOTE_CHARS: usize = 160;

/// How long an agent may take to end after it was asked to, and after it was killed.
const END_MAX: Duration = Duration::from_secs(1);

/// What in the name of an option makes its value a secret.
const SECRET: [&str; 5] = ["pass", "secret", "token", "key", "community"];

/// What an agent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Switch off. Exit code 0: done and verified by the agent itself.
    Off,
    /// Switch on.
    On,
    /// Say whether it is on. Exit code 0: on, 2: off, anything else: nobody knows.
    Status,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Off => "off",
            Action::On => "on",
            Action::Status => "status",
        }
    }
}

/// One call.
pub struct Call<'a> {
    /// Path of the agent.
    pub agent: &'a str,
    /// What it is to do.
    pub action: Action,
    /// With what.
    pub options: &'a [FenceOption],
    /// What the device calls the node, where it has more than one.
    pub plug: Option<&'a str>,
    /// What the cluster calls it.
    pub node: &'a str,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The exit code; `None` for an agent that was killed by a signal.
    pub code: Option<i32>,
    /// The last line of its output, without secrets.
    pub said: String,
}

impl Answer {
    /// For people.
    #[must_use]
    pub fn words(&self) -> String {
        let ending = match self.code {
            Some(code) => format!("exit code {code}"),
            None => "killed by a signal".to_owned(),
        };
        if self.said.is_empty() {
            ending
        } else {
            format!("{ending}: {}", self.said)
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The agent cannot be run.
    #[error("{agent} cannot be run")]
    Start {
        /// Which.
        agent: String,
        /// What the system says.
        source: io::Error,
    },
    /// It did not end in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It is not wanted any more.
    #[error("called off")]
    Cancelled,
}

impl Call<'_> {
    /// Runs the agent to its end.
    ///
    /// # Errors
    ///
    /// It could not be run, was late or called off; nothing of it runs any more then, unless the
    /// kernel itself does not let it go.
    pub fn run(&self, cancel: &Cancel) -> Result<Answer, NoAnswer> {
        let failed = |source: io::Error| NoAnswer::Start {
            agent: self.agent.to_owned(),
            source,
        };
        let (mut child, output) = self.start().map_err(failed)?;
        let handle = match PidFd::open(child.id().cast_signed()) {
            Ok(handle) => handle,
            Err(error) => {
                end_group(&child, Signal::SIGKILL);
                let _ = child.wait();
                return Err(failed(io::Error::other(error)));
            }
        };
        let ended = wait(&handle, output, cancel, Instant::now() + self.timeout);
        let (late, tail) = match ended {
            Ok(tail) => (None, tail),
            Err(late) => (Some(late), Vec::new()),
        };
        if late.is_some() {
            end_group(&child, Signal::SIGTERM);
            wait_for_end(&handle);
        }
        // Whatever it has left behind goes with it; its number is its own until it is waited for.
        end_group(&child, Signal::SIGKILL);
        wait_for_end(&handle);
        let status = child.try_wait().map_err(failed)?;
        match (late, status) {
            (Some(Woke::Cancelled), _) => Err(NoAnswer::Cancelled),
            (Some(_), _) | (None, None) => Err(NoAnswer::Late(self.timeout)),
            (None, Some(status)) => Ok(Answer {
                code: status.code().filter(|_| status.signal().is_none()),
                said: self.quote(&tail),
            }),
        }
    }

    fn start(&self) -> io::Result<(Child, PipeReader)> {
        let (output, writer) = io::pipe()?;
        let mut command = Command::new(self.agent);
        command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn()?;
        // Held here, its ends of the pipe would keep the output open.
        drop(command);
        if let Some(mut input) = child.stdin.take() {
            // Shorter than what a pipe holds; an agent that does not read says so by its exit code.
            let _ = input.write_all(self.input().as_bytes());
        }
        Ok((child, output))
    }

    /// What the agent reads. Both the names that agents have for the node are given: the device's
    /// and the cluster's.
    fn input(&self) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, value: &str| {
            lines.push_str(&format!("{name}={value}\n"));
        };
        for option in self.options {
            line(&option.name, option.value.expose());
        }
        line("nodename", self.node);
        if let Some(plug) = self.plug {
            line("plug", plug);
            line("port", plug);
        }
        line("action", self.action.word());
        lines
    }

    fn quote(&self, tail: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(tail).into_owned();
        let is_secret = |option: &&FenceOption| {
            let name = option.name.to_lowercase();
            SECRET.iter().any(|part| name.contains(part))
        };
        for option in self.options.iter().filter(is_secret) {
            let secret = option.value.expose();
            if !secret.is_empty() {
                text = text.replace(secret, "***");
            }
        }
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        let letters = line.unwrap_or_default().trim().chars();
        letters
            .filter(|letter| !letter.is_control())
            .take(QUOTE_CHARS)
            .collect()
    }
}

/// Waits until the agent has ended; the end of its output, or why it was not waited for.
fn wait(
    handle: &PidFd,
    mut output: PipeReader,
    cancel: &Cancel,
    deadline: Instant,
) -> Result<Vec<u8>, Woke> {
    let mut tail = Vec::new();
    let mut open = true;
    loop {
        let mut waited = vec![
            (cancel.descriptor(Urgency::Stop), PollFlags::POLLIN),
            (handle.as_fd(), PollFlags::POLLIN),
        ];
        // Last, so that an agent that writes without end does not hide that it has ended.
        if open {
            waited.push((output.as_fd(), PollFlags::POLLIN));
        }
        match wait_for(&waited, Some(deadline)) {
            Woke::Ready(0) => return Err(Woke::Cancelled),
            Woke::Ready(1) => {
                drain(&mut output, &mut tail);
                return Ok(tail);
            }
            Woke::Ready(_) => open = read(&mut output, &mut tail),
            late => return Err(late),
        }
    }
}

/// Takes in what the agent wrote last: no more than a pipe holds, as what it has left behind may
/// write for ever.
fn drain(output: &mut PipeReader, tail: &mut Vec<u8>) {
    for _ in 0..PIPE_BYTES / OUTPUT_MAX {
        let rest = [(output.as_fd(), PollFlags::POLLIN)];
        let ready = matches!(wait_for(&rest, Some(Instant::now())), Woke::Ready(_));
        if !ready || !read(output, tail) {
            return;
        }
    }
}

/// Reads what is there and keeps the end of it; false when there will be no more.
fn read(output: &mut PipeReader, tail: &mut Vec<u8>) -> bool {
    let mut buffer = [0; OUTPUT_MAX];
    let Ok(length) = output.read(&mut buffer) else {
        return false;
    };
    tail.extend_from_slice(&buffer[..length]);
    let surplus = tail.len().saturating_sub(OUTPUT_MAX);
    tail.drain(..surplus);
    length > 0
}

fn end_group(child: &Child, signal: Signal) {
    // Nobody left in it is what is wanted.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), signal);
}

fn wait_for_end(handle: &PidFd) {
    let waited = [(handle.as_fd(), PollFlags::POLLIN)];
    // Ended or not, the status is asked for next.
    let _ = wait_for(&waited, Some(Instant::now() + END_MAX));
}
