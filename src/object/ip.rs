//! `ip`: an address that follows its task.
//!
//! The guard alone adds, renews and deletes addresses, so that no renewal can cross a release. This
//! object asks it, and looks for itself only to verify that a released address is gone.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use standfast_sys::netlink::Route;
use toml::{Table, Value};

use super::context::AddressOf;
use super::parameter::{missing, text, wrong};
use super::{
    BuildContext, Context, Object, ObjectError, ObjectKind, Probe, Urgency, Watch, Watched,
};
use crate::config::ObjectConfig;
use crate::config::kind::{AddressClaim, Claims, Kind, ParameterError};
use crate::engine::Class;

/// The row.
pub(super) const KIND: ObjectKind = ObjectKind {
    row: Kind {
        name: "ip",
        summary: "an IPv4 address on an interface, announced by ARP when it moves",
        parameters: &["address", "interface"],
        example: r#"[[task.object]]
name = "address"
kind = "ip"
step = 3
address = "10.0.0.9/24"                    # without a length: /32
interface = "eth1"                         # or by node: { node1 = "eth1", node2 = "ens5" }
"#,
        check: |parameters| parse(parameters).map(|claim| claims(&claim)),
    },
    build,
    survey: |_| Vec::new(),
};

/// Longest time for the guard to add an address and announce it.
const START_MS_MAX: u64 = 2_000;

/// Longest time for it to be deleted and verified as gone.
const STOP_MS_MAX: u64 = 2_000;

/// How long the guard may take for a question.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Between two looks at an address that ought to be gone.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Longest name of an interface (IFNAMSIZ less its end).
const INTERFACE_NAME_MAX: usize = 15;

fn parse(parameters: &Table) -> Result<AddressClaim, ParameterError> {
    let written = text(parameters, "address", "\"10.0.0.9/24\"")?;
    let written = written.ok_or_else(|| missing("address", "\"10.0.0.9/24\""))?;
    let (address, prefix) = written.split_once('/').unwrap_or((written, "32"));
    let address = address.parse::<Ipv4Addr>().ok().filter(|address| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
    });
    let prefix = prefix
        .parse::<u8>()
        .ok()
        .filter(|prefix| (1..=32).contains(prefix));
    let (Some(address), Some(prefix)) = (address, prefix) else {
        let problem = format!("`{written}` is not an IPv4 address that a host can have");
        return Err(wrong(
            "address",
            problem,
            "such as address = \"10.0.0.9/24\"",
        ));
    };
    let interfaces = interfaces(parameters)?;
    Ok(AddressClaim {
        address,
        prefix,
        interfaces,
    })
}

fn interfaces(parameters: &Table) -> Result<Vec<(String, String)>, ParameterError> {
    let usable = |name: &str| {
        (1..=INTERFACE_NAME_MAX).contains(&name.len())
            && !name.contains(|letter: char| letter == '/' || letter.is_whitespace())
    };
    let refuse = |key: &str| {
        let problem = format!("an interface's name has 1 to {INTERFACE_NAME_MAX} letters");
        wrong(
            key,
            problem,
            "such as interface = \"eth1\" or { a = \"eth1\", b = \"ens5\" }",
        )
    };
    match parameters.get("interface") {
        None => Err(missing("interface", "\"eth1\"")),
        Some(Value::String(name)) if usable(name) => Ok(vec![("*".to_owned(), name.clone())]),
        Some(Value::Table(nodes)) if !nodes.is_empty() => {
            let named = |(node, name): (&String, &Value)| match name.as_str() {
                Some(name) if usable(name) => Ok((node.clone(), name.to_owned())),
                Some(_) | None => Err(refuse(&format!("interface.{node}"))),
            };
            nodes.iter().map(named).collect()
        }
        Some(_) => Err(refuse("interface")),
    }
}

fn claims(claim: &AddressClaim) -> Claims {
    Claims {
        addresses: vec![claim.clone()],
        exclusive: vec![format!("address {}", claim.address)],
        of_task: Vec::new(),
        start_ms_max: START_MS_MAX,
        stop_ms_max: STOP_MS_MAX,
        fenced: None,
        remarks: Vec::new(),
    }
}

fn build(config: &ObjectConfig, context: BuildContext) -> Box<dyn Object> {
    let claim = parse(&config.parameters).expect("the configuration was checked");
    let whose = AddressOf {
        task: context.task,
        object: context.position,
        address: 0,
        ip: claim.address,
    };
    Box::new(Ip { whose, context })
}

/// One address.
struct Ip {
    whose: AddressOf,
    context: BuildContext,
}

impl Object for Ip {
    fn probe(&mut self, _context: &Context<'_>) -> Probe {
        match self
            .context
            .keeper
            .held(self.whose, Instant::now() + ANSWER_MAX)
        {
            Ok(true) => Probe::Running,
            Ok(false) => match present_on(self.whose.ip) {
                Ok(None) => Probe::Stopped,
                Ok(Some(interface)) => Probe::Failed {
                    reason: format!("{} is on {interface}, not held", self.whose.ip),
                },
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        }
    }

    fn start(&mut self, _context: &Context<'_>, deadline: Instant) -> Result<(), ObjectError> {
        while self.context.notices.pop().is_some() {}
        self.context.keeper.hold(self.whose, deadline)
    }

    fn stop(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
        _forced: bool,
    ) -> Result<(), ObjectError> {
        self.context.keeper.release(self.whose, deadline)?;
        while let Some(interface) = present_on(self.whose.ip)? {
            if Instant::now() >= deadline {
                let what = format!("the address {} on {interface}", self.whose.ip);
                let holders = "somebody other than this daemon, who adds it again".to_owned();
                return Err(ObjectError::InUse { what, holders });
            }
            // A forced stop must verify too: being in a hurry only shortens the pause.
            let _ = context.pause(LOOK_AGAIN, Urgency::Forced);
        }
        Ok(())
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            descriptor: Some((self.context.notices.descriptor(), PollFlags::POLLIN)),
            other: None,
            at: None,
        }
    }

    /// An interface without carrier is told, not taken for a failure: the engine moves the task if
    /// another node could serve it, and leaves it alone if none could.
    fn look(&mut self, _context: &Context<'_>) -> Watched {
        match self.context.notices.pop() {
            Some(notice) => Watched::Note {
                class: Class::Warning,
                text: notice.text,
            },
            None => Watched::Fine,
        }
    }
}

/// The interface that has the address now, by its name or number.
fn present_on(ip: Ipv4Addr) -> Result<Option<String>, ObjectError> {
    let mut route = Route::open()?;
    let Some(found) = route
        .addresses()?
        .into_iter()
        .find(|address| address.ip == ip)
    else {
        return Ok(None);
    };
    let links = route.links()?;
    let name = links
        .into_iter()
        .find(|link| link.index == found.interface_index);
    Ok(Some(name.map_or_else(
        || found.interface_index.to_string(),
        |link| link.name,
    )))
}
