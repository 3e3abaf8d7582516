//! A logical unit by its real paths: SCSI by SG_IO on each of them, NVMe by the kernel's calls.
//!
//! The caller stops waiting long before a path that hangs returns. Requests that were left behind
//! end by themselves, and while too many of one path do not, it gets no more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{EACCES, EINVAL, ENODEV, ENOTTY, ENXIO, EOPNOTSUPP, EPERM};
use standfast_sys::scsi::pr_ops::ReservationCalls;
use standfast_sys::scsi::{
    Action, Fault as ScsiFault, Identity, OutParameters, ReservationType, ScsiPath, Sense, SenseKey,
};
use standfast_sys::sentence;

use super::discover::{Disk, Transport};
use super::unit::{Answer, Ask, Fault, Held, Unit};
use super::workers::{Answers, Letter, STACK_BYTES, Workers};

/// The kernel's timeout of a command: long, for what follows it disturbs other disks of the same
/// adapter. Nobody here waits so long.
const COMMAND_MAX: Duration = Duration::from_secs(10);

const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

/// A disk with its opened paths.
pub struct PathUnit {
    paths: Vec<Workers<OnePath>>,
}

struct OnePath {
    path: PathBuf,
    /// Or why it could not be opened.
    device: Result<ScsiPath, String>,
    /// Of an NVMe name space the file with its name.
    wwid: Option<PathBuf>,
    /// The kernel has taken the device away; what has its name by now may be another.
    gone: AtomicBool,
}

impl OnePath {
    fn open(path: &Path, transport: &Transport) -> OnePath {
        let device = ScsiPath::open(path).map_err(|error| sentence(&error));
        OnePath::new(path, device, transport)
    }

    fn new(path: &Path, device: Result<ScsiPath, String>, transport: &Transport) -> OnePath {
        let wwid = match transport {
            Transport::Scsi => None,
            Transport::Nvme { wwid } => Some(wwid.clone()),
        };
        OnePath {
            path: path.to_owned(),
            gone: AtomicBool::new(device.is_err()),
            device,
            wwid,
        }
    }
}

impl Answers for OnePath {
    fn carry_out(&self, ask: &Ask) -> Result<Answer, Fault> {
        let device = self
            .device
            .as_ref()
            .map_err(|why| Fault::Path(why.clone()))?;
        let answer = match (&self.wwid, ask) {
            (Some(wwid), Ask::Identity) => return read_wwid(wwid),
            (Some(_), ask) => nvme(device, ask),
            (None, ask) => scsi(device, ask),
        };
        if let Err(ScsiFault::Kernel(error)) = &answer
            && matches!(error.raw_os_error(), Some(ENODEV | ENXIO))
        {
            self.gone.store(true, Ordering::Release);
        }
        answer.map_err(fault)
    }
}

impl PathUnit {
    /// Opens every path of a disk. One that cannot be opened in time counts as a path that does not
    /// answer.
    #[must_use]
    pub fn open(disk: &Disk, patience: Duration) -> PathUnit {
        let deadline = Instant::now() + patience;
        let (sender, receiver) = channel();
        // The kernel lets nobody open a path while it is resetting its adapter.
        for (at, path) in disk.paths.iter().cloned().enumerate() {
            let (sender, transport) = (sender.clone(), disk.transport.clone());
            let open = move || drop(sender.send((at, OnePath::open(&path, &transport))));
            let thread = thread::Builder::new().name("disk path".to_owned());
            // Without a thread it counts as one that does not open.
            let _ = thread.stack_size(STACK_BYTES).spawn(open);
        }
        drop(sender);
        let mut paths: Vec<Option<OnePath>> = disk.paths.iter().map(|_| None).collect();
        while paths.iter().any(Option::is_none) {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok((at, path)) => paths[at] = Some(path),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let closed = |(path, opened): (&PathBuf, Option<OnePath>)| {
            Workers::new(opened.unwrap_or_else(|| {
                let why = Err("it does not open in time".to_owned());
                OnePath::new(path, why, &disk.transport)
            }))
        };
        let paths = disk.paths.iter().zip(paths).map(closed).collect();
        PathUnit { paths }
    }

    /// Opens paths that have come, and anew those that were taken away, if they lead to the disk of
    /// this name. Positions of the others stay.
    pub fn refresh(&mut self, disk: &Disk, identity: &Identity, patience: Duration) {
        for path in &disk.paths {
            let at = self
                .paths
                .iter()
                .position(|known| known.path().path == *path);
            if at.is_some_and(|at| !self.paths[at].path().gone.load(Ordering::Acquire)) {
                continue;
            }
            let one = Disk {
                paths: vec![path.clone()],
                ..disk.clone()
            };
            let mut alone = PathUnit::open(&one, patience);
            let names = alone.round(&[(0, Ask::Identity)], patience).pop();
            match names {
                Some(Ok(Answer::Identities(names))) if names.contains(identity) => {}
                Some(_) | None => continue,
            }
            match at {
                Some(at) => self.paths[at] = alone.paths.remove(0),
                None => self.paths.append(&mut alone.paths),
            }
        }
    }
}

impl Unit for PathUnit {
    fn paths(&self) -> usize {
        self.paths.len()
    }

    fn path_name(&self, path: usize) -> String {
        let path = &self.paths[path].path().path;
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    fn round(&mut self, asks: &[(usize, Ask)], patience: Duration) -> Vec<Result<Answer, Fault>> {
        let deadline = Instant::now() + patience;
        let late = || Fault::Late(format!("no answer within {} ms", patience.as_millis()));
        let mut answers: Vec<Option<Result<Answer, Fault>>> = vec![None; asks.len()];
        let (sender, receiver) = channel::<Letter>();
        for (at, (path, ask)) in asks.iter().enumerate() {
            if let Err(fault) = self.paths[*path].ask(ask, at, &sender) {
                answers[at] = Some(Err(fault));
            }
        }
        drop(sender);
        while answers.iter().any(Option::is_none) {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok((at, answer)) => answers[at] = Some(answer),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let answer = |answer: Option<_>| answer.unwrap_or_else(|| Err(late()));
        answers.into_iter().map(answer).collect()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&mut self, length: Duration) {
        thread::sleep(length);
    }
}

fn scsi(device: &ScsiPath, ask: &Ask) -> Result<Answer, ScsiFault> {
    let order = |action, own, other, outlives_power| {
        let parameters = OutParameters {
            own,
            other,
            outlives_power,
        };
        let done = device.reserve_out(action, TYPE, &parameters, COMMAND_MAX);
        done.map(|()| Answer::Done)
    };
    let answer = match *ask {
        Ask::Identity => device.identities(COMMAND_MAX).map(Answer::Identities),
        Ask::Keys => device.read_keys(COMMAND_MAX).map(|read| Answer::Keys {
            generation: read.generation,
            keys: read.keys,
        }),
        Ask::Holder => device.read_reservation(COMMAND_MAX).map(|holder| {
            Answer::Holder(holder.map(|held| Held {
                key: held.key,
                is_ours_in_kind: held.kind == TYPE,
            }))
        }),
        Ask::Capabilities => device
            .capabilities(COMMAND_MAX)
            .map(|told| Answer::Capabilities {
                outlives_power: told.outlives_power,
                has_type: told.has(TYPE),
            }),
        Ask::IsRegistered { key } => match order(Action::Register, key, key, true) {
            Ok(_) => Ok(Answer::Registered(true)),
            Err(error) if matches!(error.fault(), ScsiFault::Conflict) => {
                Ok(Answer::Registered(false))
            }
            Err(error) => Err(error),
        },
        Ask::Register { key } => order(Action::RegisterAndIgnore, 0, key, true),
        // APTPL is the unit's, and the last register by anybody sets it.
        Ask::Unregister { key } => order(Action::Register, key, 0, true),
        Ask::Reserve { key } => order(Action::Reserve, key, 0, false),
        Ask::Release { key } => order(Action::Release, key, 0, false),
        Ask::Preempt { own, victim } => order(Action::PreemptAndAbort, own, victim, false),
        Ask::Reset => device.reset_unit().map(|()| Answer::Done),
    };
    answer.map_err(|error| error.into_fault())
}

fn nvme(device: &ScsiPath, ask: &Ask) -> Result<Answer, ScsiFault> {
    let calls = ReservationCalls {
        device,
        timeout: COMMAND_MAX,
    };
    let done = |result: Result<(), ScsiFault>| result.map(|()| Answer::Done);
    match *ask {
        Ask::Keys => {
            let (generation, keys) = calls.read_keys()?;
            Ok(Answer::Keys { generation, keys })
        }
        Ask::Holder => {
            let holder = calls.read_reservation()?;
            Ok(Answer::Holder(holder.map(|held| Held {
                key: held.key,
                is_ours_in_kind: held.is_registrants_only,
            })))
        }
        // The kernel always asks for registrations that outlive power.
        Ask::Capabilities => Ok(Answer::Capabilities {
            outlives_power: true,
            has_type: true,
        }),
        // Read from sysfs instead.
        Ask::Identity => Ok(Answer::Identities(Vec::new())),
        // A host registers for all its paths at once: what is there, the keys tell.
        Ask::IsRegistered { .. } => Ok(Answer::Registered(true)),
        Ask::Register { key } => done(calls.register(key)),
        Ask::Unregister { .. } => done(calls.register(0)),
        Ask::Reserve { key } => done(calls.reserve(key)),
        Ask::Release { key } => done(calls.release(key)),
        Ask::Preempt { own, victim } => done(calls.preempt(own, victim, true)),
        // Preempt and abort is the strongest there is.
        Ask::Reset => Ok(Answer::Done),
    }
}

fn read_wwid(file: &Path) -> Result<Answer, Fault> {
    let read = |error: std::io::Error| Fault::Path(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(read)?;
    let identity: Option<Identity> = text.trim().parse().ok();
    Ok(Answer::Identities(identity.into_iter().collect()))
}

/// What a command's fault means to who decides.
fn fault(fault: ScsiFault) -> Fault {
    let words = sentence(&fault);
    match fault {
        ScsiFault::Conflict => Fault::Conflict,
        ScsiFault::TimedOut { .. } => Fault::Late(words),
        ScsiFault::Check(sense) => check(&sense, words),
        ScsiFault::Kernel(error) => match error.raw_os_error() {
            Some(ENOTTY | EOPNOTSUPP | EINVAL) => Fault::Unknown(words),
            Some(EPERM | EACCES) => Fault::Refused(words),
            Some(_) | None => Fault::Path(words),
        },
        _ => Fault::Path(words),
    }
}

fn check(sense: &Sense, words: String) -> Fault {
    match sense.key {
        SenseKey::IllegalRequest if sense.is_unknown_command() => Fault::Unknown(words),
        SenseKey::IllegalRequest | SenseKey::DataProtect => Fault::Refused(words),
        SenseKey::NoSense
        | SenseKey::Recovered
        | SenseKey::NotReady
        | SenseKey::Medium
        | SenseKey::Hardware
        | SenseKey::UnitAttention
        | SenseKey::Aborted
        | SenseKey::Miscompare
        | SenseKey::Other(_) => Fault::Path(words),
    }
}
