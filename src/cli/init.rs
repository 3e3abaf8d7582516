//! `standfast init`: the first configuration and the cluster's secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::args::InitArgs;
use super::context::kinds;
use super::exit::{Exit, Failure};
use crate::config::{Config, template};
use crate::model::ClusterId;
use crate::node::secret;

const CONFIG: &str = "cluster.toml";
const SECRET: &str = "secret";

/// The directory that needs no word about it.
const USUAL: &str = "/etc/standfast";

pub(super) fn run(args: &InitArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    // Everything that can be refused is refused before the first file.
    let mut id: ClusterId = [0; 16];
    random(&mut id)?;
    let directory = absolute(&args.directory)?;
    let (config, secret) = (directory.join(CONFIG), directory.join(SECRET));
    let text = draft(args, id, &secret)?;
    refuse_overwriting(args, &[&config, &secret])?;
    fs::create_dir_all(&directory).map_err(|error| cannot_write(&directory, &error))?;
    let mut bytes = Zeroizing::new([0; secret::SECRET_BYTES]);
    random(bytes.as_mut())?;
    for path in [&secret, &config] {
        set_aside(path)?;
    }
    secret::create(&secret, &bytes)?;
    if let Err(error) = write_new(&config, &text) {
        // Nothing half: a secret without its configuration would only be in the way.
        let _ = fs::remove_file(&secret);
        return Err(cannot_write(&config, &error));
    }
    let _ = File::open(&directory).and_then(|directory| directory.sync_all());
    tell(args, &config, &secret, out)?;
    Ok(Exit::Well)
}

/// The configuration's text, which has passed its own check.
fn draft(args: &InitArgs, id: ClusterId, secret: &Path) -> Result<String, Failure> {
    let nodes: Vec<&str> = args.nodes.iter().map(String::as_str).collect();
    let interfaces: Vec<&str> = args.interfaces.iter().map(String::as_str).collect();
    let disks: Vec<&str> = args.disks.iter().map(String::as_str).collect();
    let secret = secret.to_str().ok_or_else(|| {
        let problem = format!("{} is not text in UTF-8", secret.display());
        Failure::wrong(problem, "choose another --directory")
    })?;
    let kinds = kinds();
    let draft = template::Draft {
        name: &args.name,
        id,
        nodes: &nodes,
        interfaces: &interfaces,
        disks: &disks,
        secret: (Path::new(secret).parent() != Some(Path::new(USUAL))).then_some(secret),
    };
    let text = template::commented(&draft, &kinds);
    match Config::parse(&text, &kinds) {
        Ok(_) => Ok(text),
        Err(errors) => {
            let first = &errors.problems()[0];
            Err(Failure::wrong(first.problem.clone(), first.remedy.clone()))
        }
    }
}

fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| {
        let problem = format!("the kernel gives no random numbers: {error}");
        Failure::new(
            Exit::Failed,
            problem,
            "try again when the machine has been up for a minute",
        )
    })
}

fn absolute(directory: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(directory).map_err(|error| {
        let problem = format!("there is no directory `{}`: {error}", directory.display());
        Failure::wrong(problem, "name one with --directory, such as /etc/standfast")
    })
}

fn refuse_overwriting(args: &InitArgs, paths: &[&PathBuf]) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    // A dangling link is something that is there, too.
    let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let problem = format!("{} is there already and was left alone", path.display());
    let remedy = "edit it, or write to another place with --directory. --force replaces it \
                  and keeps the old one as `.old`; the disk must be formatted anew then";
    Err(Failure::refused(problem, remedy))
}

/// Keeps what --force replaces.
fn set_aside(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    fs::rename(path, &old).map_err(|error| cannot_write(Path::new(&old), &error))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "be root, or name another place with --directory",
        io::ErrorKind::AlreadyExists => "somebody else has just made it: look before you try again",
        _ => "check the directory and its free space",
    };
    Failure::new(
        Exit::Failed,
        format!("cannot write {}: {error}", path.display()),
        remedy,
    )
}

fn tell(args: &InitArgs, config: &Path, secret: &Path, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "wrote {}", config.display())?;
    writeln!(
        out,
        "wrote {} (mode 0600; whoever reads it is a member)",
        secret.display()
    )?;
    writeln!(out, "\nNext:")?;
    let mut step = 0;
    let mut say = |out: &mut dyn Write, text: String| {
        step += 1;
        writeln!(out, "  {step}. {text}")
    };
    let usual = config.parent() == Some(Path::new(USUAL));
    let option = if usual {
        String::new()
    } else {
        format!(" --config {}", config.display())
    };
    say(
        out,
        format!(
            "edit {}: your tasks, and what says CHANGE-ME",
            config.display()
        ),
    )?;
    say(
        out,
        format!("`standfast check --live{option}` on this node"),
    )?;
    let disks = match args.disks.as_slice() {
        [] => "DEVICE".to_owned(),
        disks => disks.join(" "),
    };
    say(
        out,
        format!("`standfast disk format {disks}{option}`, once, on one node only"),
    )?;
    for node in args.nodes.iter().skip(1) {
        let directory = config.parent().unwrap_or(Path::new("/"));
        let (config, secret, directory) = (config.display(), secret.display(), directory.display());
        say(
            out,
            format!("copy both: `scp -p {config} {secret} {node}:{directory}/`"),
        )?;
    }
    if args.nodes.len() > 1 {
        say(
            out,
            format!("`standfast check --live{option}` on the other nodes"),
        )?;
    }
    say(
        out,
        "start the daemon on all nodes, then `standfast status`".to_owned(),
    )
}
