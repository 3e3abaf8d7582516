//! Command lines, and what LVM itself does with them where no device mapper is needed.

use super::*;

fn devices() -> Vec<PathBuf> {
    ["/dev/sdb", "/dev/mapper/x"].map(PathBuf::from).to_vec()
}

fn owned_by(system: &str) -> Report {
    Report {
        group: "vg0".to_owned(),
        devices: devices(),
        missing: 0,
        system: system.to_owned(),
        exported: false,
        lock: String::new(),
        autoactivated: false,
    }
}

#[test]
fn every_command_is_limited_to_the_devices_of_its_group() {
    let words = take_over(&owned_by("n1"), "n2", &devices()).join(" ");
    assert_eq!(
        words,
        "vgchange --yes --config local/extra_system_ids=[\"n1\"] --systemid n2 vg0 \
         --devices /dev/sdb,/dev/mapper/x"
    );
    let words = take_over(&owned_by(""), "n2", &devices()).join(" ");
    assert!(words.contains(" local/extra_system_ids=[] "), "{words}");
    let words = asking(&devices()).join(" ");
    assert!(words.starts_with("pvs --foreign --reportformat json -o pv_name,"));
    assert!(words.ends_with(" --devices /dev/sdb,/dev/mapper/x"));
}

#[test]
fn a_map_is_found_by_its_whole_name() {
    let directory = tempfile::tempdir().unwrap();
    for (device, map) in [
        ("dm-0", Some("vg0-data2")),
        ("dm-7", Some("vg0-data")),
        ("sda", None),
    ] {
        let place = directory.path().join(device);
        fs::create_dir_all(place.join("dm")).unwrap();
        if let Some(map) = map {
            fs::write(place.join("dm/name"), format!("{map}\n")).unwrap();
        }
    }
    assert!(is_mapped(directory.path(), "vg0-data"));
    assert!(is_mapped(directory.path(), "vg0-data2"));
    assert!(!is_mapped(directory.path(), "vg0-dat"));
    fs::remove_file(directory.path().join("dm-7/dm/name")).unwrap();
    assert!(!is_mapped(directory.path(), "vg0-data"));
}
