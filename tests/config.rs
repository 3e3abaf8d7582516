//! What an administrator sees: every configuration under `config/good` parses and shows exactly
//! the warnings beside it, every one under `config/bad` is refused with exactly the report beside
//! it. `BLESS=1` writes the reports anew; read the difference before it is committed.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use standfast::config::kind::{AddressClaim, Claims, Kind, ParameterError};
use standfast::config::{Config, Look, render};

/// A kind with required parameters, an address and something exclusive.
const IP: Kind = Kind {
    name: "ip",
    summary: "an address that moves with the task",
    parameters: &["address", "interface"],
    example: "[[task.object]]\nname = \"address\"\nkind = \"ip\"\naddress = \"10.0.0.9/24\"\n\
              interface = \"lan0\"",
    check: check_ip,
};

/// A kind that takes anything.
const ANY: Kind = Kind {
    name: "any",
    summary: "whatever a test needs",
    parameters: &["anything"],
    example: "[[task.object]]\nname = \"thing\"\nkind = \"any\"",
    check: |_| Ok(Claims::default()),
};

fn check_ip(parameters: &toml::Table) -> Result<Claims, ParameterError> {
    let error = |key: &str, problem: String, remedy: &str| ParameterError {
        key: key.to_owned(),
        problem,
        remedy: remedy.to_owned(),
    };
    let example = "add `address = \"10.0.0.9/24\"` and `interface = \"lan0\"`";
    let missing = |key: &str| error("", format!("the object has no `{key}`"), example);
    let written = parameters.get("address").and_then(toml::Value::as_str);
    let written = written.ok_or_else(|| missing("address"))?;
    let parsed = written.split_once('/').and_then(|(address, prefix)| {
        Some((
            address.parse().ok()?,
            prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
        ))
    });
    let remedy = "write the address and its prefix, such as \"10.0.0.9/24\"";
    let bad = || error("address", format!("`{written}` is not an address"), remedy);
    let (address, prefix) = parsed.ok_or_else(bad)?;
    let interfaces = match parameters.get("interface") {
        Some(toml::Value::String(name)) => vec![("*".to_owned(), name.clone())],
        Some(toml::Value::Table(table)) => {
            let text = |value: &toml::Value| value.as_str().unwrap_or_default().to_owned();
            table
                .iter()
                .map(|(node, name)| (node.clone(), text(name)))
                .collect()
        }
        _ => return Err(missing("interface")),
    };
    let addresses = vec![AddressClaim {
        address,
        prefix,
        interfaces,
    }];
    let exclusive = vec![format!("address {address}")];
    Ok(Claims {
        addresses,
        exclusive,
        of_task: Vec::new(),
        start_ms_max: 100,
        stop_ms_max: 100,
        remarks: Vec::new(),
        fenced: None,
    })
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(folder);
    let entries = fs::read_dir(&folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    files
}

/// Compares a report with the file beside the configuration; an empty report has no file.
fn compare(path: &Path, report: &str) {
    let expected_path = path.with_extension("expected");
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    if report == expected {
        return;
    }
    if std::env::var_os("BLESS").is_none() {
        panic!(
            "{}\n--- expected\n{expected}\n--- is\n{report}",
            path.display()
        );
    }
    if report.is_empty() {
        fs::remove_file(expected_path).unwrap();
    } else {
        fs::write(expected_path, report).unwrap();
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn good_configurations_parse_with_the_warnings_beside_them() {
    let files = files("good");
    assert!(files.len() >= 5);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        match Config::parse(&text, &[IP, ANY]) {
            Ok(config) => {
                compare(
                    &path,
                    &render(config.warnings(), name_of(&path), &text, Look::Plain),
                );
            }
            Err(errors) => panic!("{}", errors.render(name_of(&path), &text)),
        }
    }
}

#[test]
fn bad_configurations_are_refused_with_the_report_beside_them() {
    let files = files("bad");
    assert!(files.len() >= 30);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        match Config::parse(&text, &[IP, ANY]) {
            Ok(_) => panic!("{} was accepted", path.display()),
            Err(errors) => compare(&path, &errors.render(name_of(&path), &text)),
        }
    }
}

#[test]
fn every_report_belongs_to_a_configuration() {
    for folder in ["good", "bad"] {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/config")
            .join(folder);
        for entry in fs::read_dir(parent).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                path.with_extension("toml").exists(),
                "{} is left over",
                path.display()
            );
        }
    }
}

#[test]
fn a_report_in_colour_says_the_same() {
    let text = "[cluster]\nname = 3\n";
    let errors = Config::parse(text, &[IP, ANY]).unwrap_err();
    let coloured = render(errors.problems(), "f", text, Look::Coloured);
    assert!(coloured.contains("\u{1b}[") && !errors.render("f", text).contains('\u{1b}'));
}

/// Parses and renders; whatever the text is, that must end.
fn survive(text: &str) {
    let (problems, looks) = match Config::parse(text, &[IP, ANY]) {
        Ok(config) => (config.warnings().to_vec(), [Look::Plain, Look::Coloured]),
        Err(errors) => (errors.problems().to_vec(), [Look::Plain, Look::Coloured]),
    };
    for look in looks {
        let report = render(&problems, "fuzz", text, look);
        assert_eq!(report.is_empty(), problems.is_empty());
    }
}

/// One change to a text: a place, how much to remove there, and what to put there.
fn mutation() -> impl Strategy<Value = (usize, usize, String)> {
    let pieces = [
        "\"",
        "[",
        "]]",
        "[[",
        "{",
        "}",
        "=",
        "\n",
        "\r",
        "#",
        ",",
        ".",
        "-",
        "0",
        "9999999999999",
        "\\",
        "\u{1b}",
        "é",
        "\u{feff}",
        "'''",
        "true",
        "nan",
        "1979-05-27",
        "node",
        "a.b",
        "\0",
    ];
    let piece = prop_oneof![
        proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        ".{0,8}",
    ];
    (any::<usize>(), 0..24_usize, piece)
}

fn mutate(text: &str, changes: &[(usize, usize, String)]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for (at, removed, put) in changes {
        let start = at % (letters.len() + 1);
        let end = (start + removed).min(letters.len());
        letters.splice(start..end, put.chars());
    }
    letters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_configurations_never_panic(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec(mutation(), 1..6),
    ) {
        let files = files("good");
        let text = fs::read_to_string(&files[which.index(files.len())]).unwrap();
        survive(&mutate(&text, &changes));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        survive(&String::from_utf8_lossy(&bytes));
    }
}
