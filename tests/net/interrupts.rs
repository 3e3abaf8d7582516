//! The demonstration, interrupted: whenever and however that happens, nothing is left of it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::rig::keeper::INTERRUPTED;
use crate::rig::lab::{Lab, Wish};
use crate::rig::leftovers::{self, MARK, mark_of, processes_with};
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::PATIENCE;
use crate::{Scenario, must};

/// How long the first line of the story may take: everything is built before it.
const BUILDING: Duration = Duration::from_secs(900);

/// By this variable all processes of one demonstration are known, those of the build too.
const DEMONSTRATION: &str = "STANDFAST_DEMONSTRATION";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let wish = Wish::detect(500);
    vec![Scenario::new("demo_interrupted", wish, demo_interrupted).switched_off()]
}

/// Who hears the signal.
#[derive(Clone, Copy, Debug)]
enum Hearer {
    /// Everybody, as at a keyboard.
    Group,
    /// Only the shell.
    Script,
    /// Only the program that it runs.
    Lab,
}

/// One interruption.
#[derive(Clone, Copy, Debug)]
struct Interrupt {
    /// Words of the story after which it comes.
    after: &'static str,
    hearer: Hearer,
    signal: Signal,
    /// Another one as soon as the cleaning begins.
    again: bool,
    keep: bool,
}

const fn interrupt(after: &'static str, hearer: Hearer, signal: Signal) -> Interrupt {
    Interrupt {
        after,
        hearer,
        signal,
        again: false,
        keep: false,
    }
}

fn demo_interrupted(_: &mut Lab) -> Result<(), Trouble> {
    let formed = interrupt("The cluster has formed", Hearer::Lab, Signal::SIGINT);
    let operator = interrupt("An operator says", Hearer::Script, Signal::SIGHUP);
    let back = interrupt("All cables are back", Hearer::Group, Signal::SIGINT);
    let keep = true;
    let again = true;
    let all = [
        interrupt("Building", Hearer::Script, Signal::SIGINT),
        interrupt("Building", Hearer::Group, Signal::SIGTERM),
        interrupt("one shared disk", Hearer::Group, Signal::SIGTERM),
        interrupt("one shared disk", Hearer::Script, Signal::SIGINT),
        Interrupt { keep, ..formed },
        Interrupt {
            keep,
            again,
            ..operator
        },
        Interrupt { again, ..back },
        interrupt("dies", Hearer::Lab, Signal::SIGTERM),
    ];
    for (number, one) in all.iter().enumerate() {
        let name = format!("{}-{number}", std::process::id());
        one.happen(&name)
            .map_err(|trouble| Trouble::new(format!("{one:?}: {trouble}")))?;
    }
    Ok(())
}

impl Interrupt {
    /// Starts a demonstration, interrupts it, and looks what is left.
    fn happen(&self, name: &str) -> Result<(), Trouble> {
        // Whoever runs this in the background ignores the keyboard, and a shell cannot undo that.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP,INT,QUIT,TERM", "scripts/demo"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--json")
            .args(self.keep.then_some("--keep"))
            .env(DEMONSTRATION, name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut script = command.spawn().doing("start the demonstration")?;
        let result = self.judge(&mut script, name);
        for pid in processes_with(DEMONSTRATION, name) {
            // Only after a failure is there anything, and it may end in between.
            let _ = kill(pid, Signal::SIGKILL);
        }
        drop(script.wait());
        result
    }

    fn judge(&self, script: &mut Child, name: &str) -> Result<(), Trouble> {
        let story = listen(script)?;
        wait_for(self.after, &story, BUILDING)?;
        let keepers = keepers(name);
        self.send(script, &keepers)?;
        if self.again {
            wait_for(INTERRUPTED, &story, PATIENCE)?;
            self.send(script, &keepers)?;
        }
        let status = wait_for_the_end(script, &story)?;
        must(
            status == Some(128 + self.signal as i32),
            format!("it ended with {status:?}"),
        )?;
        let running = processes_with(DEMONSTRATION, name);
        must(running.is_empty(), format!("still there: {running:?}"))?;
        let left: Vec<_> = keepers
            .iter()
            .flat_map(|(_, mark)| leftovers::of(mark))
            .collect();
        must(left.is_empty(), format!("left behind: {left:?}"))
    }

    fn send(&self, script: &Child, keepers: &[(Pid, String)]) -> Result<(), Trouble> {
        let shell = Pid::from_raw(script.id().cast_signed());
        let sent = match (self.hearer, keepers) {
            (Hearer::Group, _) => killpg(shell, self.signal),
            (Hearer::Script, _) => kill(shell, self.signal),
            (Hearer::Lab, [(keeper, _)]) => kill(*keeper, self.signal),
            (Hearer::Lab, _) => {
                return Err(Trouble::new(format!("not one keeper: {keepers:?}")));
            }
        };
        sent.doing("send the signal")
    }
}

/// Every line that is told on standard error, from a thread of its own.
fn listen(script: &mut Child) -> Result<Receiver<String>, Trouble> {
    let errors = script.stderr.take();
    let errors = errors.ok_or_else(|| Trouble::new("a demonstration without a voice"))?;
    let (teller, story) = crossbeam_channel::unbounded();
    thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            // Nobody listens any more after a failure.
            drop(teller.send(line));
        }
    });
    Ok(story)
}

fn wait_for(words: &str, story: &Receiver<String>, patience: Duration) -> Result<(), Trouble> {
    loop {
        let line = story.recv_timeout(patience);
        if line.doing(format!("wait for {words:?}"))?.contains(words) {
            return Ok(());
        }
    }
}

/// Waits until nobody is left who could tell more, and returns the exit code.
fn wait_for_the_end(script: &mut Child, story: &Receiver<String>) -> Result<Option<i32>, Trouble> {
    loop {
        match story.recv_timeout(PATIENCE) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(error) => return Err(error).doing("wait for the end"),
        }
    }
    let status = script.wait().doing("wait for the demonstration")?;
    Ok(status.code())
}

/// The processes of a demonstration whose mark others carry, and these marks.
fn keepers(name: &str) -> Vec<(Pid, String)> {
    let all = processes_with(DEMONSTRATION, name).into_iter();
    let marks = all.filter_map(|pid| Some((pid, mark_of(pid.as_raw().cast_unsigned())?)));
    marks
        .filter(|(_, mark)| !processes_with(MARK, mark).is_empty())
        .collect()
}
