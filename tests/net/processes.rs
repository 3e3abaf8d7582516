//! The node's own processes and the task's program: killed, stopped, starved.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::rig::lab::{Lab, Wish};
use crate::rig::node::Role;
use crate::rig::software::Service;
use crate::rig::trouble::{Doing, Trouble};
use crate::rig::wait::{PATIENCE, eventually};
use crate::{Scenario, lasting, must, must_move};

/// Busy loops for each core on each node.
const LOOPS: usize = 8;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let echo = Wish::detect(500);
    let short = Wish {
        restarts: 1,
        ..echo
    };
    let busy = echo.with(Service::Address);
    let fast = Wish::detect(100).with(Service::Address);
    vec![
        Scenario::new("core_killed", echo, core_killed).quick(),
        Scenario::new("core_stopped", echo, core_stopped).quick(),
        Scenario::new("guard_and_core_stopped", echo, guard_and_core_stopped).with_overlap(),
        Scenario::new("runner_killed", echo, runner_killed).quick(),
        Scenario::new("daemon_killed_and_restarted", echo, daemon_killed).with_overlap(),
        Scenario::new("program_killed", echo, program_killed).quick(),
        Scenario::new("restarts_used_up", short, restarts_used_up),
        Scenario::new("busy_loops_at_detect_500", busy, busy_loops),
        Scenario::new("busy_loops_at_detect_100", fast, busy_loops),
    ]
}

/// Waits until a role has another process than before.
pub(crate) fn replaced(
    lab: &Lab,
    node: usize,
    role: Role,
    before: nix::unistd::Pid,
) -> Result<(), Trouble> {
    let what = format!("a new {role:?} on node {}", lab.name(node));
    eventually(&what, PATIENCE, || {
        let now = lab.nodes[node].pid(role).ok()?;
        (now != before).then_some(())
    })
}

fn core_killed(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let before = lab.nodes[owner].pid(Role::Core)?;
    let at = lab.nodes[owner].signal(&[Role::Core], Signal::SIGKILL)?;
    replaced(lab, owner, Role::Core, before)?;
    lab.settle()?;
    let verdict = lab.watch(at, Duration::from_secs(2));
    must_move(lab, &verdict, 0)
}

fn core_stopped(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let before = lab.nodes[owner].pid(Role::Core)?;
    let at = lab.nodes[owner].signal(&[Role::Core], Signal::SIGSTOP)?;
    let verdict = lab.moved_to(1 - owner, at)?;
    must_move(lab, &verdict, 1)?;
    replaced(lab, owner, Role::Core, before)?;
    lab.settle().map(drop)
}

fn guard_and_core_stopped(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let both = [Role::Guard, Role::Core];
    let at = lab.nodes[owner].signal(&both, Signal::SIGSTOP)?;
    eventually("the kernel to drop the address", PATIENCE, || {
        (!lab.nodes[owner].holds_address().ok()?).then_some(())
    })?;
    println!(
        "    address gone {:.0} ms after the stop",
        (lab.probe.now() - at) as f64 / 1e6
    );
    let gone = lab.probe.now();
    let verdict = lab.moved_to(1 - owner, at)?;
    println!("    two nodes answered for {} ms", verdict.two_owner_ms);
    let later = lab.probe.since(gone);
    must(
        later.two_owner_ms == 0,
        "two nodes answered after the kernel had dropped the address",
    )?;
    // The guard may have been replaced, and killed its core, as soon as it ran again.
    lab.nodes[owner].signal(&[Role::Guard], Signal::SIGCONT)?;
    drop(lab.nodes[owner].signal(&[Role::Core], Signal::SIGCONT));
    lab.settle()?;
    let verdict = lab.probe.since(gone);
    must(
        verdict.two_owner_ms == 0,
        "two nodes served after the node woke up",
    )
}

fn runner_killed(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let program = lab.nodes[owner].program_pids();
    let before = lab.nodes[owner].pid(Role::Runner)?;
    let at = lab.nodes[owner].signal(&[Role::Runner], Signal::SIGKILL)?;
    replaced(lab, owner, Role::Runner, before)?;
    let verdict = lab.watch(at, Duration::from_secs(2));
    must_move(lab, &verdict, 0)?;
    let now = lab.nodes[owner].program_pids();
    must(
        now == program,
        format!("the program was {program:?} and is {now:?}: not adopted"),
    )
}

fn daemon_killed(lab: &mut Lab) -> Result<(), Trouble> {
    let owner = lab.owner()?;
    let all = [Role::Guard, Role::Core, Role::Runner];
    let at = lab.nodes[owner].signal(&all, Signal::SIGKILL)?;
    lab.nodes[owner].start_daemon()?;
    let after = at + Duration::from_secs(3).as_nanos() as u64;
    lab.probe
        .wait_for_owner("the service to answer", after, |_| true)?;
    lab.settle()?;
    let verdict = lab.probe.since(at);
    println!(
        "    silent for {:.1} ms, {} moves",
        verdict.silent_ms_max, verdict.moves
    );
    must(
        verdict.two_owner_ms == 0,
        format!("two owners for {} ms", verdict.two_owner_ms),
    )
}

fn program_killed(lab: &mut Lab) -> Result<(), Trouble> {
    for _ in 0..3 {
        let verdict = lab.kill_program()?;
        must_move(lab, &verdict, 0)?;
    }
    Ok(())
}

fn restarts_used_up(lab: &mut Lab) -> Result<(), Trouble> {
    let verdict = lab.kill_program()?;
    must_move(lab, &verdict, 0)?;
    let verdict = lab.kill_program()?;
    must_move(lab, &verdict, 1)
}

fn busy_loops(lab: &mut Lab) -> Result<(), Trouble> {
    let cores = std::thread::available_parallelism()
        .doing("count the cores")?
        .get();
    let mut burners = Vec::new();
    for node in &lab.nodes {
        burners.extend(node.burn(LOOPS * cores)?);
    }
    let from = lab.probe.now();
    let verdict = lab.watch(from, lasting(10, 300));
    drop(burners);
    must_move(lab, &verdict, 0)
}
