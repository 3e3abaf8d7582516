//! What a person should know of this machine before a group is started on it. Runs beside a daemon
//! and reads only.

use std::process::Command;
use std::time::{Duration, Instant};

use super::labels::Search;
use super::report::{Report, system_id};
use super::{GroupError, ObjectError};
use super::{LVM, LogicalVolume, asking, program_of};
use crate::config::Severity;
use crate::config::kind::Remark;
use crate::object::aside::Aside;
use crate::object::sentence;

/// Longest time for all questions.
const SURVEY_MAX: Duration = Duration::from_secs(5);

/// Looks at the programs, this node's system id and the group.
pub(in crate::object) fn survey(volume: &LogicalVolume) -> Vec<(Severity, Remark)> {
    let remark = |severity, problem: String, remedy: &str| {
        let remark = Remark {
            key: "group".to_owned(),
            problem,
            remedy: remedy.to_owned(),
        };
        (severity, remark)
    };
    let deadline = Instant::now() + SURVEY_MAX;
    let told = match ask(&["systemid".to_owned()], deadline) {
        Ok(told) => told,
        Err(error) => {
            let remedy = "install the package lvm2 on every node of the task";
            return vec![remark(Severity::Error, sentence(&error), remedy)];
        }
    };
    let mut found = Vec::new();
    if system_id(&told).is_none() {
        let problem = "this node has no LVM system id, so no volume group can be its own";
        let remedy = "set `system_id_source = \"uname\"` in the section `global` of \
                      /etc/lvm/lvm.conf, on every node";
        found.push(remark(Severity::Error, problem.to_owned(), remedy));
    }
    match look(volume, deadline) {
        Err(error) => {
            let remedy = "see `pvs --foreign -o +vg_systemid`; a task cannot start on it as it is";
            found.push(remark(Severity::Warning, sentence(&error), remedy));
        }
        Ok(report) if report.autoactivated => {
            let group = &volume.group;
            let problem = format!("the volume group {group} may be activated at boot");
            let remedy =
                format!("`vgchange --setautoactivation n {group}` on the node that has it");
            found.push(remark(Severity::Warning, problem, &remedy));
        }
        Ok(_) => {}
    }
    found
}

fn look(volume: &LogicalVolume, deadline: Instant) -> Result<Report, ObjectError> {
    let labelled = Search::default().labelled(Instant::now() + super::ANSWER_MAX);
    let group = volume.group.clone();
    if labelled.is_empty() {
        return Err(GroupError::NotFound { group }.into());
    }
    let report = Report::read(&group, &ask(&asking(&labelled), deadline)?)?;
    report.check()?;
    Ok(report)
}

fn ask(words: &[String], deadline: Instant) -> Result<String, ObjectError> {
    let program = program_of(&LVM)?;
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C");
    command.env("LVM_SUPPRESS_FD_WARNINGS", "1");
    match Aside::new().call(deadline, move || command.output()) {
        Err(_) => Err(ObjectError::late(format!("{program} did not answer"))),
        Ok(Err(error)) => Err(ObjectError::file(format!("run {program}"))(error)),
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let ending = format!("failed: {}", said.trim().lines().last().unwrap_or_default());
            let program = program.to_owned();
            Err(ObjectError::Program { program, ending })
        }
    }
}
