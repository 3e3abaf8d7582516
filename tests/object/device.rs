//! A raw device: who has it open, who may, and since when it is started.

use super::*;

fn device(disk: &Disk, place: &Place) -> Box<dyn Object> {
    let text = "[[task.object]]\nname = \"raw\"\nkind = \"device\"\n";
    place.object(&format!("{text}device = \"{}\"\n", disk.path))
}

/// Has a device open, from outside of this process.
fn opener(disk: &Disk, place: &Place, how: &str) -> Stranger {
    let ready = place.path("ready");
    let script = format!(
        "exec 3{how}{} && : >{} && exec sleep 1000",
        disk.path,
        ready.display()
    );
    let mut command = Command::new("/bin/sh");
    let child = command.args(["-c", &script]).stdin(Stdio::null());
    let child = Stranger(child.spawn().unwrap());
    eventually("the device is open", || fs::remove_file(&ready).ok());
    child
}

#[test]
fn a_device_that_its_own_task_has_open_is_let_go_after_a_kill() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut raw = device(&disk, &place);
        let join = |child: &Stranger| {
            let group = Cgroup::create(&place.group.0).unwrap();
            group.add(child.0.id() as i32).unwrap();
        };
        let mut child = opener(&disk, &place, "<");
        join(&child);
        // Nobody has started it, and yet it is used.
        assert!(matches!(probe(&mut *raw), Probe::Failed { .. }));
        stop(&mut *raw).unwrap();
        assert!(!child.0.wait().unwrap().success());
        assert_eq!(probe(&mut *raw), Probe::Stopped);
        start(&mut *raw).unwrap();
        let mut child = opener(&disk, &place, "<>");
        join(&child);
        stop(&mut *raw).unwrap();
        assert!(!child.0.wait().unwrap().success());
        assert_eq!(probe(&mut *raw), Probe::Stopped);
    });
}

#[test]
fn a_device_that_a_stranger_can_write_to_is_not_called_stopped_and_a_reader_does_no_harm() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut raw = device(&disk, &place);
        start(&mut *raw).unwrap();
        let mut child = opener(&disk, &place, "<>");
        let error = stop(&mut *raw).unwrap_err();
        let text = sentence(&error);
        assert!(matches!(error, ObjectError::InUse { .. }), "{text}");
        let named = format!("({}, descriptor 3)", child.0.id());
        assert!(text.contains(&named), "{text}");
        let lives = child.0.try_wait().unwrap().is_none();
        assert!(lives, "the stranger was killed");
        assert_eq!(probe(&mut *raw), Probe::Running);
        drop(child);
        let _reader = opener(&disk, &place, "<");
        stop(&mut *raw).unwrap();
        assert_eq!(probe(&mut *raw), Probe::Stopped);
    });
}

#[test]
fn a_device_with_a_mounted_file_system_is_refused_and_named() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let elsewhere = place.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        sh(&format!("mount {} {}", disk.path, elsewhere.display()));
        let mut raw = device(&disk, &place);
        assert!(matches!(probe(&mut *raw), Probe::Failed { .. }));
        let error = start(&mut *raw).unwrap_err();
        let words = sentence(&error);
        assert!(words.contains("is in use by something else"), "{words}");
        let error = stop(&mut *raw).unwrap_err();
        assert!(matches!(error, ObjectError::InUse { .. }), "{error}");
        sh(&format!("umount {}", elsewhere.display()));
        start(&mut *raw).unwrap();
        // What mounts it afterwards makes it useless for its programs, and keeps a stop from being
        // one.
        sh(&format!("mount {} {}", disk.path, elsewhere.display()));
        let error = stop(&mut *raw).unwrap_err();
        assert!(matches!(error, ObjectError::InUse { .. }), "{error}");
        sh(&format!("umount {}", elsewhere.display()));
        stop(&mut *raw).unwrap();
    });
}

#[test]
fn a_device_was_not_started_if_that_was_in_an_earlier_boot() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut raw = device(&disk, &place);
        start(&mut *raw).unwrap();
        fs::write(place.path("raw.started"), "another boot\n").unwrap();
        assert_eq!(probe(&mut *raw), Probe::Stopped);
        start(&mut *raw).unwrap();
        assert_eq!(probe(&mut *raw), Probe::Running);
        disk.lose();
        let Watched::Lost { reason } = watched(&mut *raw) else {
            panic!("the disk is gone");
        };
        assert!(reason.contains(&disk.path), "{reason}");
        stop(&mut *raw).unwrap();
    });
}
