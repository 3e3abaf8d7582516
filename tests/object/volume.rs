//! A volume: let go of, lost, refused, not reserved.

use super::*;

fn volume(disk: &Disk, place: &Place) -> Box<dyn Object> {
    place.object(&volume_text(disk, place))
}

fn volume_text(disk: &Disk, place: &Place) -> String {
    format!(
        "[[task.object]]\nname = \"data\"\nkind = \"volume\"\ndevice = \"{}\"\nmount = \"{}\"\n\
         filesystem = \"ext4\"\n",
        disk.path,
        place.path("mounted").display()
    )
}

/// Holds a file of the volume open from outside of this process.
fn holder(file: &Path) -> Stranger {
    let script = format!(
        "exec 3>>{0} && echo ready >&3 && exec sleep 1000",
        file.display()
    );
    let mut command = Command::new("/bin/sh");
    let child = command
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let child = Stranger(child);
    eventually("the file is open", || {
        fs::metadata(file).ok().filter(|file| file.len() > 0)
    });
    child
}

#[test]
fn a_volume_in_use_by_its_own_task_is_let_go_after_a_kill() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut volume = volume(&disk, &place);
        start(&mut *volume).unwrap();
        let mut child = holder(&place.path("mounted/file"));
        Cgroup::create(&place.group.0)
            .unwrap()
            .add(child.0.id() as i32)
            .unwrap();
        stop(&mut *volume).unwrap();
        assert!(!child.0.wait().unwrap().success());
        assert_eq!(probe(&mut *volume), Probe::Stopped);
    });
}

#[test]
fn a_volume_in_use_by_a_stranger_is_not_called_stopped_and_the_stranger_lives() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut volume = volume(&disk, &place);
        start(&mut *volume).unwrap();
        let mut child = holder(&place.path("mounted/file"));
        let error = stop(&mut *volume).unwrap_err();
        let text = sentence(&error);
        assert!(matches!(error, ObjectError::InUse { .. }), "{text}");
        assert!(
            text.contains(&format!("({}, open file 3)", child.0.id())),
            "{text}"
        );
        assert!(
            child.0.try_wait().unwrap().is_none(),
            "the stranger was killed"
        );
        // Out of the list of mounts, yet not stopped: the file system still lives.
        assert!(matches!(probe(&mut *volume), Probe::Failed { .. }));
        drop(child);
        stop(&mut *volume).unwrap();
        assert_eq!(probe(&mut *volume), Probe::Stopped);
    });
}

#[test]
fn a_volume_unmounted_by_somebody_else_is_lost() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut volume = volume(&disk, &place);
        start(&mut *volume).unwrap();
        sh(&format!("umount {}", place.path("mounted").display()));
        assert!(matches!(watched(&mut *volume), Watched::Lost { .. }));
        stop(&mut *volume).unwrap();
    });
}

#[test]
fn a_volume_on_a_dead_disk_is_lost_though_nobody_uses_its_files() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let mut volume = volume(&disk, &place);
        start(&mut *volume).unwrap();
        disk.lose();
        let Watched::Lost { reason } = watched(&mut *volume) else {
            panic!("the disk is gone");
        };
        assert!(reason.contains(&disk.path), "{reason}");
        stop(&mut *volume).unwrap();
    });
}

#[test]
fn a_volume_is_not_mounted_twice_nor_over_another() {
    in_namespaces(|| {
        let (disk, other, place) = (Disk::new(), Disk::new(), Place::new());
        let elsewhere = place.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        sh(&format!("mount {} {}", disk.path, elsewhere.display()));
        let mut volume = volume(&disk, &place);
        let error = start(&mut *volume).unwrap_err();
        assert!(
            sentence(&error).contains("already mounted at"),
            "{}",
            sentence(&error)
        );
        sh(&format!("umount {}", elsewhere.display()));
        fs::create_dir_all(place.path("mounted")).unwrap();
        sh(&format!(
            "mount {} {}",
            other.path,
            place.path("mounted").display()
        ));
        let error = start(&mut *volume).unwrap_err();
        assert!(sentence(&error).contains("instead"), "{}", sentence(&error));
        sh(&format!("umount {}", place.path("mounted").display()));
        start(&mut *volume).unwrap();
        stop(&mut *volume).unwrap();
    });
}

#[test]
fn a_volume_is_checked_first_and_a_missing_device_is_named() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let text = volume_text(&disk, &place);
        let mut checked = place.object(&format!("{text}check = \"auto\"\n"));
        start(&mut *checked).unwrap();
        stop(&mut *checked).unwrap();
        let mut missing = place.object(&text.replace(&disk.path, "/dev/no-such-device"));
        let error = with(|context| missing.start(context, std::time::Instant::now())).unwrap_err();
        assert!(sentence(&error).contains("/dev/no-such-device did not appear"));
        stop(&mut *missing).unwrap();
    });
}

#[test]
fn a_volume_is_not_mounted_from_a_disk_that_cannot_be_reserved_or_named() {
    in_namespaces(|| {
        let (disk, place) = (Disk::new(), Place::new());
        let text = volume_text(&disk, &place);
        let identity = "identity = \"naa.600140512345678900000000000000ab\"\n";
        for more in ["reservation = \"scsi\"\n", identity] {
            let mut volume = place.object(&format!("{text}{more}"));
            let error = start(&mut *volume).unwrap_err();
            let words = sentence(&error);
            assert!(
                words.contains("is neither a SCSI nor an NVMe disk"),
                "{words}"
            );
            assert_eq!(probe(&mut *volume), Probe::Stopped);
            stop(&mut *volume).unwrap();
        }
        let mut plain = place.object(&format!("{text}reservation = \"none\"\n"));
        start(&mut *plain).unwrap();
        // Mounted by an earlier life, but there is nothing that could be watched.
        let mut reserved = place.object(&format!("{text}reservation = \"scsi\"\n"));
        assert!(matches!(probe(&mut *reserved), Probe::Failed { .. }));
        stop(&mut *reserved).unwrap();
        assert_eq!(probe(&mut *plain), Probe::Stopped);
    });
}
