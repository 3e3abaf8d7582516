//! Tests of what messages alone do not show: the hash, derived times, the facts of a host, the
//! template. The messages themselves are kept under `tests/config`.

use super::kind::{AddressClaim, Claims, Kind, ParameterError};
use super::*;
use crate::model::{NodeId, NodeSet};
use crate::time::Span;

const PAIR: &str = r#"
[cluster]
name = "pair"
id = "9f0c5d2e7b6a4f318c1d0e9b8a7f6c5d"
detect = "500ms"

[[node]]
name = "b"
id = 2

[[node]]
name = "a"
id = 1

[[link]]
name = "cable-1"
kind = "ethernet"
interface = { a = "hb0", b = "hb9" }

[[link]]
name = "cable-2"
kind = "ethernet"
interface = "hb1"

[[link]]
name = "disk-1"
kind = "disk"
device = "/dev/disk/by-id/register"

[[task]]
name = "web"
nodes = ["b", "a"]

[[task.object]]
name = "server"
kind = "slow"
step = 2
seconds = 5

[[task.object]]
name = "cache"
kind = "slow"
step = 2
seconds = 9

[[task.object]]
name = "address"
kind = "slow"
seconds = 1
interface = "lan0"
"#;

const SLOW: Kind = Kind {
    name: "slow",
    summary: "something that takes its time to start",
    parameters: &["seconds", "interface"],
    example: "[[task.object]]\nname = \"slow\"\nkind = \"slow\"\nseconds = 3",
    check: check_slow,
};

fn check_slow(parameters: &toml::Table) -> Result<Claims, ParameterError> {
    let seconds = parameters.get("seconds").and_then(toml::Value::as_integer);
    let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) else {
        let (problem, remedy) = ("no seconds".to_owned(), "add `seconds = 3`".to_owned());
        return Err(ParameterError {
            key: String::new(),
            problem,
            remedy,
        });
    };
    let interface = parameters.get("interface").and_then(toml::Value::as_str);
    let address = |name: &str| AddressClaim {
        address: [10, 0, 0, 9].into(),
        prefix: 24,
        interfaces: vec![("*".to_owned(), name.to_owned())],
    };
    let addresses = interface.map(address).into_iter().collect();
    Ok(Claims {
        addresses,
        start_ms_max: 1_000 * seconds,
        ..Claims::default()
    })
}

fn parse(text: &str) -> Config {
    match Config::parse(text, &[SLOW]) {
        Ok(config) => config,
        Err(errors) => panic!("{}", errors.render("test", text)),
    }
}

fn node(id: u8) -> NodeId {
    NodeId::new(id).unwrap()
}

#[test]
fn a_configuration_says_what_was_written() {
    let config = parse(PAIR);
    assert_eq!(
        (config.revision(), config.cluster().name.as_str()),
        (1, "pair")
    );
    assert_eq!(config.cluster().id[..3], [0x9f, 0x0c, 0x5d]);
    assert_eq!(config.cluster().secret, "/etc/standfast/secret");
    assert_eq!(config.timing().detect, Span::from_ms(500));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let ids: Vec<u8> = config.nodes().iter().map(|node| node.id.number()).collect();
    assert_eq!(ids, [1, 2], "sorted by id, whatever the order of the file");
    assert_eq!(config.node("b").unwrap().id, node(2));
    assert_eq!(config.node_by_id(node(1)).unwrap().name, "a");
    assert!(config.node("c").is_none() && config.node_by_id(node(3)).is_none());
    let paths: Vec<&str> = config.links_of(node(2)).map(|(_, path)| path).collect();
    assert_eq!(paths, ["hb9", "hb1", "/dev/disk/by-id/register"]);
    assert_eq!(config.links_of(node(3)).count(), 0);
    let task = config.task("web").unwrap();
    assert_eq!((task.index.index(), task.enabled), (0, true));
    assert_eq!(task.nodes, [node(2), node(1)], "in the order of preference");
    let default = RestartConfig {
        attempts: 3,
        window: Span::from_ms(600_000),
    };
    assert_eq!(task.restart, default);
}

#[test]
fn steps_rise_and_keep_the_order_of_the_file_within() {
    let config = parse(PAIR);
    let steps = config.task("web").unwrap().steps();
    let names = |(step, objects): &(u8, Vec<&ObjectConfig>)| {
        (
            *step,
            objects
                .iter()
                .map(|object| object.name.clone())
                .collect::<Vec<_>>(),
        )
    };
    let steps: Vec<_> = steps.iter().map(names).collect();
    let expected = vec![
        (1, vec!["address".to_owned()]),
        (2, vec!["server".to_owned(), "cache".to_owned()]),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_takeover_is_bounded_by_the_slowest_object_of_each_step() {
    let rows = parse(PAIR).derived();
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap().span;
    assert_eq!(row("takeover of web"), Span::from_ms(500 + 1_000 + 9_000));
    assert_eq!(row("heartbeat"), Span::from_ms(50));
    assert_eq!(row("disk I/O budget"), Span::from_ms(25));
    assert_eq!(row("address lifetime"), Span::from_ms(1_000));
    assert_eq!(row("watchdog"), Span::from_ms(10_000));
}

#[test]
fn the_hash_ignores_how_a_value_is_written() {
    let hash = parse(PAIR).hash();
    let spaced = PAIR
        .replace(" = ", "=")
        .replace("\n\n", "\n# a remark\n\n\n");
    assert_eq!(parse(&spaced).hash(), hash, "blank space and remarks");
    let swapped = PAIR.replace("name = \"b\"\nid = 2", "id = 0x2\nname = 'b'");
    assert_eq!(
        parse(&swapped).hash(),
        hash,
        "order of keys, spelling of numbers and quotes"
    );
    let table = "interface = { a = \"hb0\", b = \"hb9\" }";
    let dotted = PAIR.replace(table, "interface.b = \"hb9\"\ninterface.a = \"hb0\"");
    assert_eq!(parse(&dotted).hash(), hash, "inline tables and dotted keys");
    assert_eq!(parse(&PAIR.replace('\n', "\r\n")).hash(), hash, "line ends");
}

#[test]
fn the_hash_changes_with_every_value() {
    let mut hashes = vec![parse(PAIR).hash()];
    for (old, new) in [
        ("\"pair\"", "\"peer\""),
        ("id = \"9f", "id = \"9e"),
        ("500ms", "501ms"),
        ("name = \"b\"\nid = 2", "name = \"b\"\nid = 3"),
        ("hb9", "hb8"),
        ("hb1", "hb2"),
        ("by-id/register", "by-id/other"),
        ("[\"b\", \"a\"]", "[\"a\", \"b\"]"),
        ("seconds = 5", "seconds = 6"),
        ("step = 2\nseconds = 9", "step = 3\nseconds = 9"),
        ("[cluster]", "revision = 2\n[cluster]"),
        ("name = \"web\"", "name = \"web\"\nenabled = false"),
    ] {
        let changed = PAIR.replacen(old, new, 1);
        assert_ne!(changed, PAIR, "{old} is in the text");
        hashes.push(parse(&changed).hash());
    }
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}

#[test]
fn the_hash_is_the_one_that_other_versions_compute() {
    // Golden bytes: a change of the canonical form is a change of the protocol.
    assert_eq!(parse(PAIR).hash(), GOLDEN_HASH);
}

const GOLDEN_HASH: [u8; 8] = [29, 12, 51, 102, 237, 139, 127, 121];

const AREA: u64 = 4 << 20;

fn good_facts() -> HostFacts {
    let interface = |name: &str| InterfaceFacts {
        name: name.to_owned(),
        up: true,
        running: true,
    };
    HostFacts {
        interfaces: ["lo", "hb0", "hb1", "lan0"].map(interface).to_vec(),
        disks: vec![DiskFacts {
            link: 2,
            size_bytes: AREA,
            logical_block: 512,
            write_us_p99: 15_000,
            read_us_p99: 10_000,
            problem: None,
        }],
        watchdog_present: true,
    }
}

/// The problems on node a with these facts, rendered.
fn on_host(facts: &HostFacts) -> String {
    let problems = check_host(&parse(PAIR), node(1), facts, AREA);
    render(&problems, "pair.toml", PAIR, Look::Plain)
}

#[test]
fn a_host_as_configured_has_no_problem() {
    assert_eq!(on_host(&good_facts()), "", "the disk's 25 ms fit exactly");
}

#[test]
fn a_missing_interface_is_shown_where_it_is_written() {
    let mut facts = good_facts();
    facts.interfaces[1].name = "hb7".to_owned();
    let expected = "\
error: there is no interface `hb0` on this node, needed by link `cable-1`
  --> pair.toml:18:19
   |
18 | interface = { a = \"hb0\", b = \"hb9\" }
   |                   ^^^^^
   |
   = help: did you mean `hb7`? Here are `hb7`, `hb1` and `lan0`
";
    assert_eq!(on_host(&facts), expected);
}

#[test]
fn a_slow_disk_names_the_smallest_detect_that_fits() {
    let mut facts = good_facts();
    facts.disks[0].write_us_p99 = 31_300;
    let shown = on_host(&facts);
    assert!(
        shown.contains("a write and a read take 41.3 ms, allowed are 25 ms"),
        "{shown}"
    );
    assert!(
        shown.contains("write `detect = \"830ms\"` or more"),
        "{shown}"
    );
    assert!(shown.contains("pair.toml:5:10"), "{shown}");
    let faster = PAIR.replace("500ms", "830ms");
    assert!(
        check_host(&parse(&faster), node(1), &facts, AREA).is_empty(),
        "the remedy works"
    );
    facts.disks[0].write_us_p99 = u64::MAX;
    assert!(on_host(&facts).contains("use a faster disk: none"));
}

#[test]
fn every_other_fact_has_its_message() {
    type Spoil = fn(&mut HostFacts);
    let cases: [(Spoil, &str); 9] = [
        (
            |f| f.interfaces[2].up = false,
            "warning: interface `hb1` is switched off",
        ),
        (
            |f| f.interfaces[2].running = false,
            "warning: interface `hb1` has no carrier",
        ),
        (
            |f| f.interfaces[3].name = "lan1".into(),
            "interface `lan0` on this node, needed by web",
        ),
        (|f| f.disks.clear(), "was not examined"),
        (
            |f| f.disks[0].problem = Some("No such device".into()),
            "used: No such device",
        ),
        (
            |f| f.disks[0].size_bytes = AREA - 1,
            "use a device of 4 MiB (4194304 bytes)",
        ),
        (
            |f| f.disks[0].logical_block = 8_192,
            "logical blocks of 8192 bytes",
        ),
        (
            |f| f.disks[0].logical_block = 0,
            "logical blocks of 0 bytes",
        ),
        (
            |f| f.watchdog_present = false,
            "warning: there is no watchdog `/dev/watchdog`",
        ),
    ];
    for (spoil, expected) in cases {
        let mut facts = good_facts();
        spoil(&mut facts);
        let shown = on_host(&facts);
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
}

#[test]
fn a_configured_watchdog_that_is_missing_is_an_error() {
    let text = format!("{PAIR}[watchdog]\ndevice = \"/dev/watchdog1\"\n");
    let facts = HostFacts {
        watchdog_present: false,
        ..good_facts()
    };
    let problems = check_host(&parse(&text), node(1), &facts, AREA);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].severity, Severity::Error);
    assert_eq!(
        &text[problems[0].span.clone().unwrap()],
        "\"/dev/watchdog1\""
    );
}

fn draft<'a>() -> template::Draft<'a> {
    template::Draft {
        name: "pair",
        id: [7; 16],
        nodes: &["alpha", "beta"],
        interfaces: &["hb0", "hb1"],
        disks: &["/dev/disk/by-id/register"],
        secret: None,
    }
}

#[test]
fn the_template_is_a_configuration_without_warnings() {
    let config = parse(&template::commented(&draft(), &[SLOW]));
    assert!(config.warnings().is_empty());
    assert_eq!(config.nodes().len(), 2);
    assert_eq!(config.links().len(), 3);
    let three = template::Draft {
        disks: &["/dev/mapper/one", "/dev/mapper/two", "/dev/mapper/three"],
        ..draft()
    };
    let config = parse(&template::commented(&three, &[SLOW]));
    assert!(config.warnings().is_empty());
    assert_eq!(config.disks().count(), 3);
    let empty = template::Draft {
        interfaces: &[],
        disks: &[],
        ..draft()
    };
    assert!(
        parse(&template::commented(&empty, &[SLOW]))
            .warnings()
            .is_empty()
    );
}

#[test]
fn the_template_still_parses_with_everything_switched_on() {
    let text = template::commented(&draft(), &[SLOW]);
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    let config = parse(&text.lines().map(switched_on).collect::<String>());
    assert_eq!(config.tasks().len(), 1);
    assert_eq!(config.tasks()[0].objects.len(), 1);
    assert_eq!(config.tasks()[0].nodes, [node(1), node(2)]);
    assert!(config.watchdog().written.is_some());
    assert!(config.watchdog().self_fence);
    assert_eq!(config.fenced_nodes(), NodeSet::only(node(1)));
    assert!(text.lines().all(|line| line.len() <= 100));
}

#[test]
fn a_report_is_bounded_and_says_what_it_leaves_out() {
    let many: String = (0..100).map(|at| format!("zz{at:03} = 1\n")).collect();
    let text = format!("{many}{PAIR}");
    let errors = Config::parse(&text, &[SLOW]).unwrap_err();
    assert_eq!(errors.problems().len(), PROBLEMS_MAX + 1);
    assert!(
        errors
            .render("f", &text)
            .contains("68 more problems are not shown")
    );
    assert!(errors.to_string().ends_with("(and 32 more problems)"));
    let long = "#".repeat(TEXT_BYTES_MAX + 1);
    assert!(Config::parse(&long, &[SLOW]).is_err());
}

#[test]
fn a_report_on_another_text_is_wrong_but_harmless() {
    let errors = Config::parse("[cluster]\nname = 3\n", &[]).unwrap_err();
    for other in ["", "é", "[clusté", "\r\n\u{1b}[31m"] {
        assert!(errors.render("f", other).contains("`name` must be text"));
    }
}
