//! The script of a story: one line each, at a moment, in words.
//!
//! ```text
//! seed 3                                    another chance than 1; before everything else
//! tasks write under reservations            the array enforces them; before everything else
//! disk compares and writes                  so the register is a record; before everything else
//! at 2s power-off a                         at this moment of the story
//! after 100ms cut link 0                    so long after the line before
//! expect t on b within 500ms                from now on at the latest then
//! ```
//! A line without a moment comes right after the one before. NODE and TASK are names of
//! `cluster.toml`, LINK counts its networks from 0, SPAN is like `300ms`, `2s`, `50us`, and
//! `for SPAN` may be left out where it stands in brackets: then it lasts until it is mended.
//!
//! ```text
//! power-on NODE|all               power-off NODE [for SPAN]        freeze NODE for SPAN
//! kill core|guard|runner on NODE for SPAN        stop core|guard|runner|node on NODE for SPAN
//! cut CABLE [for SPAN]            mend CABLE                       clog link LINK for SPAN
//!   CABLE: link LINK, or all links, then [of NODE | between NODE and NODE | from NODE [to NODE]]
//! down link LINK of NODE [for SPAN]              flap link LINK of NODE TIMES times every SPAN
//! cross links of NODE [for SPAN]
//! disk of NODE hangs|is lost|is slow|is garbled [for SPAN]         disk of NODE is well
//! disk of all hangs|...    disk-2 of NODE hangs|...    disk-3 of all is lost
//! fence of NODE fails|is slow [for SPAN]
//! replay|flip|forge|overwrite COUNT frames       save-disk         restore-disk[-2|-3]
//! TASK dies                       TASK cannot start|cannot stop|is slow on NODE [for SPAN]
//! unfit NODE [for SPAN]           leave NODE                       drift NODE [for SPAN]
//! twin of NODE                    clock of NODE runs PPM ppm fast  wall clock of NODE steps N s
//! ask NODE: move TASK to NODE | start TASK | stop TASK | standby NODE | online NODE
//!           | confirm-off NODE
//! when NODE writes STRIKE         any of the above, once NODE writes its register block
//! expect CONDITION [within SPAN]                 always CONDITION for SPAN
//!   CONDITION: TASK on NODE, TASK nowhere, NODE in, NODE out, all well
//! ```

use standfast::config::Config;
use standfast::engine::Command;
use standfast::model::{NodeId, TaskIndex};
use standfast::register::DISKS_MAX;

use crate::strike::{Attack, Cable, Device, Flaw, Ill, Part, Strike, disk_word};

/// When a line comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(u64),
    After(u64),
}

/// What must be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    On { task: usize, node: usize },
    Nowhere { task: usize },
    In { node: usize },
    Out { node: usize },
    AllWell,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    Strike(Strike),
    Expect(Condition, u64),
    Always(Condition, u64),
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) when: When,
    pub(crate) act: Act,
}

/// A whole script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) reservations: bool,
    pub(crate) compare_and_write: bool,
    pub(crate) lines: Vec<Line>,
}

/// Who the script speaks of.
pub(crate) struct Cast<'a> {
    pub(crate) config: &'a Config,
}

fn span(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &word[digits.len()..] {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * unit)
}

impl Script {
    /// Reads a script; the error names the line.
    pub(crate) fn parse(text: &str, config: &Config) -> Result<Script, String> {
        let mut script = Script {
            seed: 1,
            ..Script::default()
        };
        let cast = Cast { config };
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line
                .split_whitespace()
                .take_while(|word| *word != "#")
                .collect();
            match words.as_slice() {
                [] => {}
                ["seed", seed] => script.seed = seed.parse().map_err(|_| "a seed is a number")?,
                ["tasks", "write", "under", "reservations"] => script.reservations = true,
                ["disk", "compares", "and", "writes"] => script.compare_and_write = true,
                [moment @ .., "power-on", "all"] => {
                    for (index, node) in config.nodes().iter().enumerate() {
                        let name = node.name.as_str();
                        let moment = if index == 0 { moment } else { &[] };
                        let words = [moment, &["power-on", name]].concat();
                        script.lines.extend(cast.line(&words));
                    }
                }
                words => {
                    let parsed = cast.line(words);
                    let line = parsed.ok_or(format!("line {}: `{line}`?", number + 1))?;
                    script.lines.push(line);
                }
            }
        }
        Ok(script)
    }
}

impl Cast<'_> {
    fn line(&self, words: &[&str]) -> Option<Line> {
        let (when, words) = match words {
            ["at", moment, rest @ ..] => (When::At(span(moment)?), rest),
            ["after", time, rest @ ..] => (When::After(span(time)?), rest),
            rest => (When::After(0), rest),
        };
        Some(Line {
            text: words.join(" "),
            when,
            act: self.act(words)?,
        })
    }

    fn act(&self, words: &[&str]) -> Option<Act> {
        Some(match words {
            ["expect", condition @ .., "within", time] => {
                Act::Expect(self.condition(condition)?, span(time)?)
            }
            ["expect", condition @ ..] => Act::Expect(self.condition(condition)?, 0),
            ["always", condition @ .., "for", time] => {
                Act::Always(self.condition(condition)?, span(time)?)
            }
            ["ask", node, command @ ..] => Act::Strike(Strike::Ask {
                node: self.node(node.strip_suffix(':')?)?,
                command: self.command(command)?,
            }),
            ["when", node, "writes", strike @ ..] => {
                let Act::Strike(strike) = self.act(strike)? else {
                    return None;
                };
                Act::Strike(Strike::WhenWriting {
                    node: self.node(node)?,
                    strike: Box::new(strike),
                })
            }
            [words @ .., "for", time] => Act::Strike(self.strike(words, Some(span(time)?))?),
            words => Act::Strike(self.strike(words, None)?),
        })
    }

    fn node(&self, name: &str) -> Option<usize> {
        self.config.node(name).map(|node| node.id.index())
    }

    fn id(&self, name: &str) -> Option<NodeId> {
        self.config.node(name).map(|node| node.id)
    }

    fn task(&self, name: &str) -> Option<usize> {
        self.config.task(name).map(|task| task.index.index())
    }

    fn condition(&self, words: &[&str]) -> Option<Condition> {
        Some(match words {
            ["all", "well"] => Condition::AllWell,
            [task, "on", node] => Condition::On {
                task: self.task(task)?,
                node: self.node(node)?,
            },
            [task, "nowhere"] => Condition::Nowhere {
                task: self.task(task)?,
            },
            [node, "in"] => Condition::In {
                node: self.node(node)?,
            },
            [node, "out"] => Condition::Out {
                node: self.node(node)?,
            },
            _ => return None,
        })
    }

    fn command(&self, words: &[&str]) -> Option<Command> {
        let index = |name: &str| self.task(name).and_then(TaskIndex::new);
        Some(match words {
            ["move", task, "to", node] => Command::Move {
                task: index(task)?,
                to: self.id(node)?,
            },
            ["start", task] => Command::Start { task: index(task)? },
            ["stop", task] => Command::Stop { task: index(task)? },
            ["standby", node] => Command::Standby {
                node: self.id(node)?,
            },
            ["online", node] => Command::Online {
                node: self.id(node)?,
            },
            ["confirm-off", node] => Command::ConfirmOff {
                node: self.id(node)?,
            },
            _ => return None,
        })
    }

    fn cable(&self, words: &[&str]) -> Option<Cable> {
        let (link, rest) = match words {
            ["all", "links", rest @ ..] => (None, rest),
            ["link", link, rest @ ..] => (Some(link.parse().ok()?), rest),
            _ => return None,
        };
        let (from, to, both) = match rest {
            [] => (None, None, true),
            ["of", node] => (Some(self.node(node)?), None, true),
            ["between", one, "and", two] => (Some(self.node(one)?), Some(self.node(two)?), true),
            ["from", one, "to", two] => (Some(self.node(one)?), Some(self.node(two)?), false),
            ["from", one] => (Some(self.node(one)?), None, false),
            ["to", two] => (None, Some(self.node(two)?), false),
            _ => return None,
        };
        Some(Cable {
            link,
            from,
            to,
            both,
        })
    }

    fn strike(&self, words: &[&str], span: Option<u64>) -> Option<Strike> {
        Some(match words {
            ["power-on", node] => Strike::PowerOn {
                node: self.node(node)?,
            },
            ["power-off", node] => Strike::PowerOff {
                node: self.node(node)?,
                span,
            },
            ["kill", part, "on", node] => Strike::Kill {
                part: part_of(part)?,
                node: self.node(node)?,
                span: span?,
            },
            ["stop", part, "on", node] => Strike::Stop {
                part: part_of(part)?,
                node: self.node(node)?,
                span: span?,
            },
            ["freeze", node] => Strike::Freeze {
                node: self.node(node)?,
                span: span?,
            },
            ["leave", node] => Strike::Leave {
                node: self.node(node)?,
            },
            ["drift", node] => Strike::Drift {
                node: self.node(node)?,
                span,
            },
            ["twin", "of", node] => Strike::Twin {
                node: self.node(node)?,
            },
            ["clock", "of", node, "runs", ppm, "ppm", "fast"] => Strike::Rate {
                node: self.node(node)?,
                ppm: ppm.parse().ok()?,
            },
            ["wall", "clock", "of", node, "steps", seconds, "s"] => Strike::WallStep {
                node: self.node(node)?,
                seconds: seconds.parse().ok()?,
            },
            ["unfit", node] => Strike::Unfit {
                node: self.node(node)?,
                tasks: 0,
                span,
            },
            [task, "dies"] => Strike::TaskDies {
                task: self.task(task)?,
            },
            [task, flaw @ .., "on", node] if self.task(task).is_some() => Strike::Flaw {
                task: self.task(task)?,
                node: self.node(node)?,
                flaw: flaw_of(flaw)?,
                span,
            },
            words => return self.medium(words, span),
        })
    }

    fn medium(&self, words: &[&str], span: Option<u64>) -> Option<Strike> {
        Some(match words {
            ["cut", cable @ ..] => {
                let cable = self.cable(cable)?;
                Strike::Cut { cable, span }
            }
            ["mend", cable @ ..] => {
                let cable = self.cable(cable)?;
                Strike::Mend { cable }
            }
            ["down", "link", link, "of", node] => Strike::LinkDown {
                node: self.node(node)?,
                link: link.parse().ok()?,
                span,
            },
            [
                "flap",
                "link",
                link,
                "of",
                node,
                times,
                "times",
                "every",
                every,
            ] => Strike::Flap {
                node: self.node(node)?,
                link: link.parse().ok()?,
                times: times.parse().ok()?,
                every: self::span(every)?,
            },
            ["clog", "link", link] => Strike::Clog {
                link: link.parse().ok()?,
                span: span?,
            },
            ["cross", "links", "of", node] => Strike::Cross {
                node: self.node(node)?,
                span,
            },
            words => return self.device(words, span),
        })
    }

    fn device(&self, words: &[&str], span: Option<u64>) -> Option<Strike> {
        Some(match words {
            ["disk", "of", node, "is", "well"] => Strike::DiskWell {
                node: self.node(node)?,
            },
            [disk, "of", "all", ill @ ..] if disk_of(disk).is_some() => Strike::Array {
                disk: disk_of(disk)?,
                ill: ill_of(ill)?,
                span,
            },
            [disk, "of", node, ill @ ..] if disk_of(disk).is_some() => Strike::Disk {
                node: self.node(node)?,
                disk: disk_of(disk)?,
                ill: ill_of(ill)?,
                span,
            },
            ["fence", "of", node, device @ ..] => Strike::Fence {
                node: self.node(node)?,
                device: device_of(device)?,
                span,
            },
            ["save-disk"] => Strike::SaveDisk,
            ["restore-disk"] => Strike::RestoreDisk { only: None },
            [restore] if restore.strip_prefix("restore-").and_then(disk_of).is_some() => {
                Strike::RestoreDisk {
                    only: restore.strip_prefix("restore-").and_then(disk_of),
                }
            }
            [attack, count, "frames"] => Strike::Attack {
                attack: Attack::ALL
                    .into_iter()
                    .find(|known| known.word() == *attack)?,
                count: count.parse().ok()?,
            },
            _ => return None,
        })
    }
}

fn part_of(word: &str) -> Option<Part> {
    let parts = [Part::Core, Part::Guard, Part::Runner, Part::Node];
    parts.into_iter().find(|part| part.word() == word)
}

fn flaw_of(words: &[&str]) -> Option<Flaw> {
    let flaws = [Flaw::StartsFail, Flaw::StopsFail, Flaw::Slow];
    flaws
        .into_iter()
        .find(|flaw| flaw.words() == words.join(" "))
}

fn device_of(words: &[&str]) -> Option<Device> {
    let devices = [Device::Fails, Device::Slow];
    devices
        .into_iter()
        .find(|device| device.word() == words.join(" "))
}

/// `disk` is the first, `disk-2` the second.
fn disk_of(word: &str) -> Option<usize> {
    (0..DISKS_MAX).find(|disk| disk_word(*disk) == word)
}

fn ill_of(words: &[&str]) -> Option<Ill> {
    let ills = [Ill::Hangs, Ill::Lost, Ill::Slow, Ill::Garbled];
    ills.into_iter().find(|ill| ill.word() == words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::s7;
    use crate::plan::Plan;
    use crate::rng::Rng;

    /// Whatever a plan can contain stands in its shrunk list as a line that a script can hold.
    #[test]
    fn every_planned_strike_is_a_line_of_a_script() {
        let mut tried = 0;
        for seed in 0..200 {
            let plan = Plan::of_seed(&mut Rng::new(seed));
            let config = s7::config(&plan);
            for (_, strike) in &plan.strikes {
                if matches!(strike, Strike::Unfit { .. }) {
                    continue; // a script's node is unfit for all tasks
                }
                let line = strike.words(&plan.names);
                let script = Script::parse(&line, &config).expect("a line");
                assert_eq!(script.lines[0].act, Act::Strike(strike.clone()), "{line}");
                tried += 1;
            }
        }
        assert!(tried > 2_000, "{tried}");
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let config = s7::config(&Plan::calm(2, 1, 500));
        for line in [
            "power-off x",
            "expect t9 on n1",
            "stop core on n1",
            "cut link x",
            "at once",
        ] {
            let refused = Script::parse(&format!("\n{line}"), &config);
            assert!(
                refused.is_err_and(|error| error.starts_with("line 2")),
                "{line}"
            );
        }
    }
}
