//! `init` and `check`, the secret, help and usage: what needs no daemon and no disk.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::rig::Place;

#[test]
fn init_writes_what_check_accepts() {
    let place = Place::new();
    let ran = place
        .init("pair", &["--interface", "hb0", "--interface", "hb1"])
        .exits(0);
    let ran = ran.says("disk format").says("check --live").says("scp -p");
    assert!(ran.err.is_empty());
    let secret = place.path("etc/secret");
    let metadata = fs::metadata(&secret).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o600, 65));
    let text = fs::read_to_string(place.path("etc/cluster.toml")).unwrap();
    assert!(text.contains(secret.to_str().unwrap()) && text.contains("interface = \"hb1\""));
    let ran = place.run(&["check"]).exits(0);
    ran.says("lease             200ms")
        .says("good; cluster pair, 2 nodes, 3 links, 0 tasks");
    place.run(&["check", "--strict"]).exits(0);
}

#[test]
fn two_inits_make_two_clusters() {
    let texts = [Place::with_cluster(), Place::with_cluster()].map(|place| {
        let read = |name| fs::read_to_string(place.path(name)).unwrap();
        (read("etc/secret"), read("etc/cluster.toml"))
    });
    assert_ne!(texts[0].0, texts[1].0);
    let id = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("id = \""))
            .unwrap()
            .to_owned()
    };
    assert_ne!(id(&texts[0].1), id(&texts[1].1));
}

#[test]
fn init_overwrites_only_when_told_and_keeps_the_old() {
    let place = Place::with_cluster();
    let read = |name| fs::read_to_string(place.path(name)).unwrap();
    let before = (read("etc/cluster.toml"), read("etc/secret"));
    place
        .init("other", &[])
        .exits(4)
        .warns("is there already")
        .warns("--force");
    assert_eq!((read("etc/cluster.toml"), read("etc/secret")), before);
    fs::remove_file(place.path("etc/cluster.toml")).unwrap();
    place
        .init("other", &[])
        .exits(4)
        .warns("etc/secret is there");
    assert!(!place.path("etc/cluster.toml").exists());
    fs::write(place.path("etc/cluster.toml"), &before.0).unwrap();
    place.init("other", &["--force"]).exits(0);
    assert_eq!(
        (read("etc/cluster.toml.old"), read("etc/secret.old")),
        before
    );
    assert!(
        read("etc/cluster.toml").contains("name = \"other\"") && read("etc/secret") != before.1
    );
}

#[test]
fn init_refuses_bad_names_before_it_writes() {
    let place = Place::new();
    let ran = place.init("Bad Name", &[]).exits(2);
    ran.warns("not a good name for a cluster").warns("bad-name");
    place
        .init("pair", &["--node", "a"])
        .exits(2)
        .warns("two nodes with the name `a`");
    assert!(!place.path("etc").exists());
}

#[test]
fn a_bad_configuration_is_shown_with_a_caret() {
    let place = Place::with_cluster();
    place.configure("\n[[task]]\nname = \"web\"\nnods = [\"a\"]\n");
    let ran = place.run(&["check"]).exits(2);
    let ran = ran
        .says("nods = [\"a\"]")
        .says("^^^^")
        .says("help: did you mean `nodes`");
    assert!(ran.out.contains("cluster.toml:"));
    let report = place.run(&["check", "--json"]).exits(2).json();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    let about =
        |problem: &&serde_json::Value| problem["remedy"].as_str().unwrap().contains("nodes");
    let problem = problems.iter().find(about).unwrap();
    assert!(problem["line"].as_u64().unwrap() > 40);
    assert_eq!(problem["column"], 1);
    // Commands that need it say the same, on standard error.
    place
        .run(&["disk", "show", "/dev/null"])
        .exits(2)
        .warns("^^^^");
}

#[test]
fn warnings_count_only_when_strict() {
    let place = Place::new();
    place.init("pair", &["--interface", "hb0"]).exits(0);
    place
        .run(&["check"])
        .exits(0)
        .says("is the only network link")
        .says("1 warning;");
    place.run(&["check", "--strict"]).exits(1);
    let report = place.run(&["check", "--json"]).exits(0).json();
    assert_eq!(report["ok"], true);
    assert_eq!(report["problems"][0]["severity"], "warning");
    assert_eq!(report["times"][0]["name"], "detect");
    assert_eq!(report["times"][0]["ms"], 500.0);
}

#[test]
fn what_is_not_there_or_not_text_is_named() {
    let place = Place::new();
    place
        .run(&["check"])
        .exits(2)
        .warns("cannot read the configuration")
        .warns("standfast init");
    fs::create_dir(place.path("etc")).unwrap();
    fs::write(
        place.path("etc/cluster.toml"),
        b"[cluster]\nname = \"\xff\"\n",
    )
    .unwrap();
    place
        .run(&["check"])
        .exits(2)
        .warns("cluster.toml:2 is not text in UTF-8");
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let place = Place::with_cluster();
    let disk = place.image(4 << 20);
    let disk = disk.to_str().unwrap();
    let secret = place.path("etc/secret");
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    for line in [
        ["disk", "format", disk, "--yes"].as_slice(),
        &["disk", "show", disk],
    ] {
        place
            .run(line)
            .exits(2)
            .warns("its mode is 0644")
            .warns("chmod 0600");
    }
    place
        .run(&["check", "--live"])
        .exits(2)
        .says("its mode is 0644")
        .says("chmod 0600");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    fs::write(&secret, "short\n").unwrap();
    place
        .run(&["disk", "show", disk])
        .exits(2)
        .warns("has 6 bytes");
    fs::remove_file(&secret).unwrap();
    place.run(&["disk", "show", disk]).exits(6).warns("scp -p");
}

#[test]
fn check_live_looks_at_this_machine() {
    let place = Place::new();
    place
        .init(
            "pair",
            &["--interface", "no-such-if0", "--interface", "no-such-if1"],
        )
        .exits(0);
    let disk = place.image(4 << 20);
    let ran = place.run(&["check", "--live"]).exits(2);
    let ran = ran
        .says("there is no interface `no-such-if0`")
        .says("never formatted");
    ran.says("this machine is node").says("daemon runs");
    place
        .run(&["disk", "format", disk.to_str().unwrap(), "--yes"])
        .exits(0);
    let report = place.run(&["check", "--live", "--json"]).exits(2).json();
    let seen = &report["facts"]["disks"][0];
    assert_eq!(seen["header"], "good");
    assert_eq!(seen["size_bytes"], (4 << 20));
    assert!(seen["read_us_p99"].as_u64() > Some(0) && seen["write_us_p99"].as_u64() > Some(0));
    place.image(65_536);
    place
        .run(&["check", "--live"])
        .exits(2)
        .says("too few")
        .says("2 MiB");
    fs::remove_file(&disk).unwrap();
    place
        .run(&["check", "--live"])
        .exits(2)
        .says("cannot be used")
        .says("No such file");
    place
        .run(&["check", "--live", "--node", "z"])
        .exits(2)
        .warns("`z`, is not in the conf");
}

#[test]
fn check_names_what_stands_against_a_volume_group() {
    let place = Place::with_cluster();
    let file = place.path("etc/cluster.toml");
    let text = fs::read_to_string(&file).unwrap();
    let with = |device: &str| {
        let object = "[[task]]\nname = \"db\"\n[[task.object]]\nname = \"raw\"\nkind = \"device\"\n\
                      reservation = \"scsi\"\ngroup = \"no-such-group\"\n";
        fs::write(&file, format!("{text}\n{object}device = \"{device}\"\n")).unwrap();
    };
    with("/dev/sdb");
    place
        .run(&["check"])
        .exits(2)
        .says("`/dev/sdb` is not a volume of the group `no-such-group`")
        .says("such as device = \"/dev/no-such-group/data\"");
    with("/dev/no-such-group/data");
    place.run(&["check", "--strict"]).exits(0);
    let nothing = "db/raw: no disk that answers belongs to the volume group no-such-group";
    let ran = place.run(&["check", "--live", "--node", "a"]);
    ran.says(nothing).says("pvs --foreign");
}

#[test]
fn help_teaches_and_usage_is_exit_2() {
    let place = Place::new();
    place
        .run(&["--help"])
        .exits(0)
        .says("Exit codes:")
        .says("confirm-off");
    place
        .run(&["status", "--help"])
        .exits(0)
        .says("Examples:")
        .says("links: [{name, up");
    place.run(&["--version"]).exits(0).says("standfast ");
    place.run(&["moove"]).exits(2).warns("move");
    place.run(&["move", "web"]).exits(2);
    place
        .run(&["stop", "web", "--timeout", "soon"])
        .exits(2)
        .warns("30s");
    place
        .run(&["disk", "format", "x", "--nodes-max", "65"])
        .exits(2);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::with_cluster();
    for line in [["check"].as_slice(), &["--help"], &["check", "--json"]] {
        let ran = place.run_unread(line).exits(0);
        assert_eq!(ran.err, "");
    }
}
