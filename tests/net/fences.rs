//! A node that hangs is switched off by the other one; this test is the device.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::Role;
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::{PATIENCE, eventually, holds_for};
use crate::{Scenario, must, must_move};

/// Several times `detect`: without the proof the task would run elsewhere long before.
const LONG: Duration = Duration::from_secs(3);

pub(crate) fn scenarios() -> Vec<Scenario> {
    let wish = Wish {
        fenced: true,
        ..Wish::detect(500)
    };
    vec![Scenario::new("hung_node_is_switched_off", wish, hung_node).quick()]
}

/// Guard, core and runner of the owner stand still, and its program goes on: nothing on that node
/// can let go any more, and no other may start before its power is cut.
fn hung_node(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let (other, name) = (1 - owner, lab.name(owner).to_owned());
    let file = |lab: &Lab, what: &str| -> PathBuf {
        lab.nodes[other].etc().join(format!("{what}-{name}"))
    };
    let all = [Role::Guard, Role::Core, Role::Runner];
    let at = lab.nodes[owner].signal(&all, Signal::SIGSTOP)?;
    eventually("the order to cut the power", PATIENCE, || {
        file(lab, "off").exists().then_some(())
    })?;
    holds_for(LONG, || {
        let started = lab.nodes[other].holds_address().unwrap_or(true);
        started.then(|| "the task was started without proof".to_owned())
    })?;
    lab.nodes[owner].murder()?;
    fs::write(file(lab, "dead"), "").doing("answer the agent")?;
    let verdict = lab.moved_to(other, at)?;
    must_move(lab, &verdict, 1)?;
    must(
        verdict.two_owner_ms == 0,
        format!("two owners for {} ms", verdict.two_owner_ms),
    )?;
    let history = lab.nodes[other].cli(&["history"])?;
    let told = format!("{name} is off, says power-of-{name}");
    must(
        history.contains(&told),
        format!("no `{told}` in\n{history}"),
    )?;
    for what in ["off", "dead"] {
        fs::remove_file(file(lab, what)).doing("mend the device")?;
    }
    lab.nodes[owner].boot()?;
    lab.settle().map(drop)
}
