//! What starting a program in a control group costs: born there, as programs of tasks are, and
//! moved there after the start, which waits for RCU. Only the ratio of the two counts. As root. Run
//! with `cargo bench --bench spawn`.
#![allow(missing_docs)]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use standfast_sys::cgroup::Cgroup;
use standfast_sys::spawn::Spawn;

fn start(c: &mut Criterion) {
    let name = PathBuf::from(format!("standfast-bench-{}", std::process::id()));
    let group = Cgroup::create(&name).expect("a control group, as root");
    let output = File::options().write(true).open("/dev/null");
    let output = output.expect("a file to write to");
    let command = ["/bin/true".to_owned()];
    let spawn = Spawn {
        command: &command,
        group: &group,
        environment: &[],
        directory: Path::new("/"),
        user: None,
        output: output.as_fd(),
        errors: output.as_fd(),
    };
    let mut bench = c.benchmark_group("spawn");
    bench.sample_size(20);
    bench.bench_function("born in the group", |b| {
        b.iter_batched(
            calm,
            |()| Collected(spawn.start().expect("a child")),
            BatchSize::PerIteration,
        );
    });
    bench.bench_function("moved to the group", |b| {
        b.iter_batched(
            calm,
            |()| {
                // A sleeper, which does not end before it is moved.
                let child = Command::new("/bin/sleep").arg("1000").spawn();
                let child = child.expect("a child");
                group.add(child.id().cast_signed()).expect("moved");
                Killed(child)
            },
            BatchSize::PerIteration,
        );
    });
    bench.finish();
    group.remove().expect("an empty group");
}

/// One start alone, as in real life: of moves that follow each other closely, only the first waits
/// for RCU.
fn calm() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Waited for outside of the measured time.
struct Collected(standfast_sys::process::PidFd);

impl Drop for Collected {
    fn drop(&mut self) {
        let _ = waitid(Id::PIDFd(self.0.as_fd()), WaitPidFlag::WEXITED);
    }
}

/// Ended outside of the measured time.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

criterion_group!(benches, start);
criterion_main!(benches);
