//! A volume group, as far as LVM goes without a device mapper: found by its labels, checked, taken
//! over by its system id. Where the kernel has a device mapper, the volume is used and let go too.

use std::time::{Duration, Instant};

use standfast::config::Config;
use standfast::object::kind_rows;

use super::*;

/// A group on two loop devices that belongs to the system `theirs`, and a node whose LVM is
/// configured like this.
struct Group {
    name: String,
    disks: Vec<Disk>,
    place: Place,
}

impl Group {
    /// Within its own mounts.
    fn new(node: &str) -> Group {
        let place = Place::new();
        let etc = place.path("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("lvm.conf"), node).unwrap();
        sh(&format!("mount --bind {} /etc/lvm", etc.display()));
        let disks = vec![Disk::new(), Disk::new()];
        let name = format!("sf{}", &disks[0].path["/dev/".len()..]);
        let group = Group { name, disks, place };
        let devices = group.devices();
        let as_they = "--yes --driverloaded n --config \
                       'global/system_id_source=lvmlocal local/system_id=theirs'";
        let on = format!("{as_they} --devices {}", devices.replace(' ', ","));
        sh(&format!("pvcreate {on} {devices}"));
        sh(&format!("vgcreate {on} {} {devices}", group.name));
        let volume = format!(
            "--zero n --wipesignatures n --extents 1 --name raw {}",
            group.name
        );
        sh(&format!("lvcreate {on} --activate n {volume}"));
        group
    }

    fn devices(&self) -> String {
        let paths: Vec<&str> = self.disks.iter().map(|disk| &*disk.path).collect();
        paths.join(" ")
    }

    fn object(&self) -> Box<dyn Object> {
        let name = &self.name;
        self.place.object(&format!(
            "[[task.object]]\nname = \"raw\"\nkind = \"device\"\nreservation = \"none\"\n\
             group = \"{name}\"\ndevice = \"/dev/{name}/raw\"\n"
        ))
    }

    /// Whose it is.
    fn system(&self) -> String {
        let devices = self.devices().replace(' ', ",");
        let asked = format!("vgs --devices {devices} --foreign --noheadings -o systemid");
        sh(&format!("{asked} {}", self.name))
    }
}

const OURS: &str = "global { system_id_source = \"lvmlocal\" }\nlocal { system_id = \"ours\" }\n";

#[test]
fn one_task_may_have_several_volumes_of_a_group_and_two_tasks_may_not() {
    let object = |name: &str| {
        format!(
            "[[task.object]]\nname = \"{name}\"\nkind = \"device\"\nreservation = \"none\"\n\
             group = \"vg0\"\ndevice = \"/dev/vg0/{name}\"\n"
        )
    };
    let parse = |between: &str| {
        let text = format!(
            "[cluster]\nname = \"t\"\nid = \"0123456789abcdef0123456789abcdef\"\n\
             detect = \"500ms\"\n[[node]]\nname = \"a\"\nid = 1\n[[task]]\nname = \"one\"\n{}\
             {between}{}",
            object("first"),
            object("second")
        );
        Config::parse(&text, &kind_rows())
            .map(drop)
            .map_err(|errors| errors.problems()[0].problem.clone())
    };
    assert_eq!(parse(""), Ok(()));
    let refused = parse("[[task]]\nname = \"two\"\n").unwrap_err();
    assert_eq!(
        refused,
        "duplicate group vg0: claimed by one/first and two/second"
    );
}

#[test]
fn a_group_is_taken_over_from_another_system() {
    in_namespaces(|| {
        let group = Group::new(OURS);
        assert_eq!(group.system(), "theirs");
        let mut raw = group.object();
        assert_eq!(probe(&mut *raw), Probe::Stopped);
        stop(&mut *raw).unwrap();
        let started = start(&mut *raw);
        assert_eq!(group.system(), "ours");
        match started {
            Ok(()) => assert_eq!(probe(&mut *raw), Probe::Running),
            Err(error) => {
                let mapper = Path::new("/sys/class/misc/device-mapper").exists();
                assert!(!mapper, "{}", sentence(&error));
                let words = sentence(&error);
                assert!(words.contains("lvm ended with exit code 5"), "{words}");
            }
        }
        stop(&mut *raw).unwrap();
        assert_eq!(probe(&mut *raw), Probe::Stopped);
        assert_eq!(
            group.system(),
            "ours",
            "a stop leaves it for the next owner"
        );
    });
}

#[test]
fn a_group_that_cannot_be_taken_over_is_left_as_it_is_and_named() {
    in_namespaces(|| {
        let group = Group::new("global { system_id_source = \"none\" }\n");
        let mut raw = group.object();
        let refused = |raw: &mut dyn Object, words: &str| {
            eventually(words, || {
                let soon = Instant::now() + Duration::from_secs(5);
                let error = with(|context| raw.start(context, soon)).unwrap_err();
                sentence(&error).contains(words).then_some(())
            });
        };
        refused(&mut *raw, "has no LVM system id");
        assert_eq!(group.system(), "theirs");
        fs::write(group.place.path("etc/lvm.conf"), OURS).unwrap();
        group.disks[1].lose();
        refused(&mut *raw, "lacks 1 of its physical volumes");
        group.disks[0].lose();
        let nothing = "no disk that answers belongs to the volume group";
        refused(&mut *raw, &format!("{nothing} {}", group.name));
        stop(&mut *raw).unwrap();
        assert_eq!(probe(&mut *raw), Probe::Stopped);
    });
}

#[test]
fn a_program_of_lvm_that_hangs_is_not_waited_for() {
    in_namespaces(|| {
        let group = Group::new(OURS);
        let hangs = group.place.path("lvm");
        fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let real = sh("command -v lvm");
        sh(&format!(
            "chmod 0755 {0} && mount --bind {0} {real}",
            hangs.display()
        ));
        let mut raw = group.object();
        let deadline = Instant::now() + Duration::from_millis(200);
        let error = with(|context| raw.start(context, deadline)).unwrap_err();
        assert!(matches!(error, ObjectError::Late { .. }), "{error}");
        stop(&mut *raw).unwrap();
        assert!(!group.place.group.is_populated(), "it still runs");
        sh(&format!("umount {real}"));
        assert_eq!(group.system(), "theirs");
    });
}
