//! What commands need before they can begin: the configuration, the keys, this node's name.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use super::args::Places;
use super::exit::{Exit, Failure, chain};
use crate::config::kind::Kind;
use crate::config::{Config, Look, NodeConfig, Problem, TEXT_BYTES_MAX, listed, nearest, render};
use crate::frame::Keyring;
use crate::node::control::Names;
use crate::node::secret;
use crate::object;

/// A configuration with the text it came from.
pub(super) struct Loaded {
    /// Path as it was given.
    pub(super) file: String,
    /// The text, for carets.
    pub(super) text: String,
    /// What it says.
    pub(super) config: Config,
}

/// All kinds of objects, as the configuration knows them.
pub(super) fn kinds() -> Vec<Kind> {
    object::kind_rows()
}

/// The text of the configuration.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused by the parser.
    let limit = TEXT_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                "name it with --config FILE, copy it from another node, or write a first one with \
                 `standfast init`"
            }
            io::ErrorKind::PermissionDenied => "be root, or have its mode changed to 0644",
            _ => "check the file and the disk it is on",
        };
        let problem = format!("cannot read the configuration {}: {error}", path.display());
        return Err(Failure::wrong(problem, remedy));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let problem = format!("{}:{line} is not text in UTF-8", path.display());
        Failure::wrong(
            problem,
            "save the file as UTF-8; plain English letters always are",
        )
    })
}

/// The checked configuration; what is wrong with it is told on standard error.
pub(super) fn load(places: &Places) -> Result<Loaded, Failure> {
    let text = read_text(&places.config)?;
    let file = places.config.display().to_string();
    match Config::parse(&text, &kinds()) {
        Ok(config) => Ok(Loaded { file, text, config }),
        Err(errors) => {
            let look = look(&io::stderr());
            let report = render(errors.problems(), &file, &text, look);
            let _ = write!(io::stderr(), "{report}");
            Err(Failure::Shown(Exit::Wrong))
        }
    }
}

/// Colours only where somebody sees them and wants them (<https://no-color.org>).
pub(super) fn look(stream: &impl IsTerminal) -> Look {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !unwanted {
        Look::Coloured
    } else {
        Look::Plain
    }
}

/// The cluster's keys.
pub(super) fn keyring(config: &Config) -> Result<Keyring, Failure> {
    let secret = secret::read(Path::new(&config.cluster().secret))?;
    Ok(Keyring::new(&secret, &config.cluster().id))
}

/// This node's entry.
pub(super) fn own_node<'c>(places: &Places, config: &'c Config) -> Result<&'c NodeConfig, Failure> {
    let name = match &places.node {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    config.node(&name).ok_or_else(|| {
        let names = || config.nodes().iter().map(|node| node.name.as_str());
        let problem = format!("this node, `{name}`, is not in the configuration");
        let known = listed(names());
        Failure::wrong(
            problem,
            match nearest(&name, names()) {
                Some(meant) => format!("did you mean `--node {meant}`? It has {known}"),
                None => format!("say which it is with --node; the configuration has {known}"),
            },
        )
    })
}

/// The host's name up to its first dot.
fn host_name() -> Result<String, Failure> {
    let remedy = "say which node this is with --node NAME";
    let host = nix::unistd::gethostname()
        .map_err(|error| Failure::wrong(format!("the host has no name: {error}"), remedy))?;
    let name = host.to_string_lossy();
    match name.split('.').next() {
        Some(first) if !first.is_empty() => Ok(first.to_owned()),
        _ => Err(Failure::wrong("the host has no name", remedy)),
    }
}

/// Line and column of a problem, from 1; the column counts characters.
pub(super) fn position(problem: &Problem, text: &str) -> Option<(usize, usize)> {
    let start = problem.span.as_ref()?.start;
    let before = text.get(..start)?;
    let line = 1 + before.matches('\n').count();
    let column = before
        .chars()
        .rev()
        .take_while(|letter| *letter != '\n')
        .count()
        + 1;
    Some((line, column))
}

/// Names without a daemon that tells them; none if the configuration cannot be used.
pub(super) fn configured_names(places: &Places) -> Option<Names> {
    let text = read_text(&places.config).ok()?;
    let config = Config::parse(&text, &kinds()).ok()?;
    Some(Names::of(&config, own_node(places, &config).ok()?))
}

/// A word on an error of the kernel or a library, for a remedy that depends on it.
pub(super) fn device_failure(error: &dyn std::error::Error, device: &Path) -> Failure {
    let text = chain(error);
    let remedy = if text.contains("Permission denied") || text.contains("EACCES") {
        "be root: disks belong to nobody else".to_owned()
    } else if text.contains("No such file") || text.contains("ENOENT") {
        "see `lsblk` and `ls -l /dev/disk/by-id` for what there is".to_owned()
    } else {
        format!(
            "check it with `lsblk {0}` and `dmesg | tail`, and its cables or sessions",
            { device.display() }
        )
    };
    Failure::new(Exit::Failed, text, remedy)
}
