//! `fence NODE`, `fence test NODE`: switches a node off through its devices, or tries them.

use std::io::Write;

use super::args::{FenceArgs, FenceCommand, Places};
use super::exit::{Exit, Failure};
use super::question::confirm;
use super::status::{fetch, unexpected};
use super::{names, words};
use crate::node::control::{Request, Response, ask};
use crate::node::power::desk::Wish;

pub(super) fn run(places: &Places, args: &FenceArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (name, wish) = match (&args.command, &args.name) {
        (Some(FenceCommand::Test { name, .. }), _) => (name, Wish::Test),
        (None, Some(name)) => (name, Wish::Off),
        (None, None) => {
            let remedy = "`standfast fence NODE`, or `standfast fence test NODE`";
            return Err(Failure::wrong("no node is named".to_owned(), remedy));
        }
    };
    let status = fetch(places)?;
    let node = names::node(&status.names, name)?;
    if *name == status.names.node {
        let problem = format!("{name} is this node, which cannot see to its own power");
        return Err(Failure::refused(problem, "ask another node to do it"));
    }
    let timeout = match &args.command {
        Some(FenceCommand::Test { timeout, .. }) => *timeout,
        None => args.timeout,
    };
    if wish == Wish::Off {
        let nodes = status.snapshot.iter().flat_map(|snapshot| &snapshot.nodes);
        let seen = nodes.into_iter().find(|seen| seen.node == node);
        let heard = seen
            .and_then(|seen| seen.heard_ms)
            .filter(|ms| *ms < 10_000.0);
        let stands = match (seen, heard) {
            (Some(seen), Some(ms)) => {
                format!("is heard ({} ago, {})", words::ms(ms), seen.state)
            }
            _ => "is not heard".to_owned(),
        };
        writeln!(
            out,
            "You are about to switch {name} off, without asking it; it {stands}.\n\
             What runs there ends at once, and runs elsewhere as after a power failure."
        )?;
        out.flush()?;
        if !args.yes {
            confirm(&format!("Switch {name} off?"))?;
        }
    }
    match ask(&places.run_dir, &Request::Fence { node, wish }, timeout)? {
        Response::Done(text) => {
            writeln!(out, "{text}")?;
            Ok(Exit::Well)
        }
        other => Err(unexpected(other)),
    }
}
