//! The house rules that no compiler checks: layers, purity, sizes, where unsafe code may stand.
//!
//! Reads the sources as text, line by line; rustfmt's layout makes that reliable. Each rule is a
//! function from a file to complaints, and is tried on small texts first, so that none of them
//! passes because it sees nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 60;
const LINE_LETTERS_MAX: usize = 100;
const README_LINES_MAX: usize = 200;

/// What each part of `src` may use of the others; a part may always use itself.
const LAYERS: [(&str, &[&str]); 14] = [
    ("time", &[]),
    ("model", &[]),
    ("frame", &["model"]),
    ("mldc", &["frame", "model"]),
    ("config", &["model", "time"]),
    ("register", &["model", "time"]),
    (
        "engine",
        &["config", "frame", "mldc", "model", "register", "time"],
    ),
    ("record", &["engine", "model", "time"]),
    ("storage", &["config", "frame", "model", "register", "time"]),
    (
        "link",
        &[
            "config", "engine", "frame", "mldc", "model", "register", "storage", "time",
        ],
    ),
    ("object", &["config", "engine", "model", "storage", "time"]),
    (
        "node",
        &[
            "config", "engine", "frame", "link", "mldc", "model", "object", "record", "register",
            "storage", "time",
        ],
    ),
    (
        "cli",
        &[
            "config", "engine", "frame", "link", "model", "node", "object", "record", "register",
            "storage", "time",
        ],
    ),
    ("bin", &["cli", "config", "node", "object"]),
];

/// Parts that know no clock, socket, thread, file or random source.
const PURE: [&str; 8] = [
    "time", "model", "frame", "mldc", "config", "register", "engine", "record",
];

/// What a pure part may not even name.
const IMPURE: [&str; 14] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os::fd",
    "std::sync::mpsc",
    "UdpSocket",
    "TcpStream",
    "HashMap",
    "HashSet",
    "getrandom",
    "standfast_sys",
];

/// The line that makes clippy hold a pure part to it.
const DENIED: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// In pieces, like all that is banned here, so that this file does not complain about itself.
const UNSAFE: &str = concat!("un", "safe");

/// One source file.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Directory or file right below `src`, if that is where it is.
    fn part(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let part = below.split('/').next()?;
        Some(part.strip_suffix(".rs").unwrap_or(part)).filter(|part| *part != "lib")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// Numbered lines of what is shipped: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test() { 0 } else { usize::MAX };
        let shipped = self.text.lines().take(end);
        let shipped = shipped.take_while(|line| !line.starts_with("#[cfg(test)]"));
        let numbered = shipped.enumerate().map(|(at, line)| (at + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// Letters that can be part of a name.
fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Does the line hold this as a whole word or path?
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(in_name) && !after.is_some_and(in_name)
    })
}

/// Layers point one way.
fn layers(source: &Source) -> Vec<String> {
    let Some(part) = source.part() else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == part) else {
        return vec![source.complain(1, format!("`{part}` has no place in the table of layers"))];
    };
    let mut complaints = Vec::new();
    let root = if part == "bin" {
        "standfast::"
    } else {
        "crate::"
    };
    for (number, line) in source.code() {
        for (at, _) in line.match_indices(root) {
            if line[..at].chars().next_back().is_some_and(in_name) {
                continue;
            }
            let rest = &line[at + root.len()..];
            if rest.starts_with('{') {
                complaints.push(source.complain(number, "one `use` for each part of the crate"));
                continue;
            }
            let used: String = rest.chars().take_while(|letter| in_name(*letter)).collect();
            let known = LAYERS.iter().any(|(name, _)| *name == used);
            if known && used != part && !allowed.contains(&used.as_str()) {
                complaints.push(source.complain(number, format!("`{part}` may not use `{used}`")));
            }
        }
    }
    complaints
}

/// What decides is repeatable.
fn purity(source: &Source) -> Vec<String> {
    let Some(part) = source.part().filter(|part| PURE.contains(part)) else {
        return Vec::new();
    };
    let mut complaints = Vec::new();
    for (number, line) in source.code() {
        for word in IMPURE.iter().filter(|word| mentions(line, word)) {
            complaints.push(source.complain(number, format!("`{part}` is pure, not for `{word}`")));
        }
    }
    if source.path.ends_with("/mod.rs")
        && source.path.matches('/').count() == 2
        && !source.text.lines().any(|line| line == DENIED)
    {
        complaints.push(source.complain(1, format!("a pure part says {DENIED}")));
    }
    complaints
}

/// Files, functions and lines that can be read.
fn sizes(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let count = source.text.lines().count();
    if count > FILE_LINES_MAX {
        complaints.push(source.complain(count, format!("over {FILE_LINES_MAX} lines in a file")));
    }
    let mut open: Option<(usize, &str)> = None;
    for (at, line) in source.text.lines().enumerate() {
        if line.chars().count() > LINE_LETTERS_MAX {
            let what = format!("over {LINE_LETTERS_MAX} letters in a line");
            complaints.push(source.complain(at + 1, what));
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        match open {
            None if is_function(line.trim_start()) && !line.ends_with(['}', ';']) => {
                open = Some((at, indent));
            }
            Some((start, outer)) if line.trim_end() == format!("{outer}}}") => {
                // Nested functions and closures count as part of the outer one.
                if at + 1 - start > FUNCTION_LINES_MAX {
                    let what = format!("over {FUNCTION_LINES_MAX} lines in a function");
                    complaints.push(source.complain(start + 1, what));
                }
                open = None;
            }
            Some((_, outer)) if line.trim_end() == format!("{outer});") => open = None,
            Some((_, outer)) if indent == outer && line.ends_with(';') => open = None,
            _ => {}
        }
    }
    complaints
}

fn is_function(line: &str) -> bool {
    let words = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "const",
        "async",
        UNSAFE,
        "extern",
        "\"C\"",
    ];
    let mut rest = line.split(' ').skip_while(|word| words.contains(word));
    rest.next() == Some("fn")
}

/// Unsafe code only in `sys`; nothing unfinished, no test that is not run.
fn bans(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut ban = |found: bool, what: &str| {
            if found {
                complaints.push(source.complain(at + 1, what));
            }
        };
        let outside = !source.path.starts_with("sys/");
        ban(outside && mentions(code, UNSAFE), "this belongs in sys");
        ban(
            code.contains(concat!("#[ig", "nore")),
            "a test that is not run proves nothing",
        );
        ban(code.contains(concat!("to", "do!(")), "not finished");
        ban(
            code.contains(concat!("unim", "plemented!(")),
            "not finished",
        );
        ban(
            code.contains(concat!("db", "g!(")),
            "left over from debugging",
        );
    }
    complaints
}

/// A file says what it is for.
fn header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.complain(1, "the file does not begin with what it is for (`//! ...`)")]
}

const RULES: [fn(&Source) -> Vec<String>; 5] = [layers, purity, sizes, bans, header];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

#[test]
fn the_sources_keep_the_house_rules() {
    let mut paths = Vec::new();
    for directory in [
        "src",
        "sys",
        "tests",
        "examples",
        "benches",
        "fuzz/fuzz_targets",
    ] {
        files(&root().join(directory), ".rs", &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 30, "the sources were not found");
    let mut complaints = Vec::new();
    for path in paths
        .iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
    {
        let text = fs::read_to_string(path).expect("a source can be read");
        let path = path
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        let source = Source { path, text };
        complaints.extend(RULES.iter().flat_map(|rule| rule(&source)));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).expect("a README");
    assert!(
        text.lines().count() <= README_LINES_MAX,
        "README.md has over {README_LINES_MAX} lines"
    );
}

#[test]
fn scripts_can_be_run() {
    let mut paths = vec![root().join(".ci/run")];
    files(&root().join("scripts"), "", &mut paths);
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.starts_with("#!") {
            let mode = fs::metadata(&path).expect("a script").permissions().mode();
            assert!(mode & 0o111 == 0o111, "{} cannot be run", path.display());
        }
    }
}

/// A source with this path and text.
fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn the_layer_rule_can_fail() {
    let uphill = "use crate::node::page;\n";
    assert_eq!(layers(&source("src/engine/turn.rs", uphill)).len(), 1);
    assert!(layers(&source("src/cli/status.rs", uphill)).is_empty());
    assert!(layers(&source("src/engine/turn.rs", "// crate::node\n")).is_empty());
    assert_eq!(
        layers(&source("src/engine/turn.rs", "use crate::{node, time};\n")).len(),
        1
    );
    assert_eq!(layers(&source("src/novelty/mod.rs", "")).len(), 1);
    let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n    {uphill}}}\n");
    assert!(layers(&source("src/engine/turn.rs", &tests)).is_empty());
    assert_eq!(
        layers(&source(
            "src/bin/standfast.rs",
            "use standfast::engine::Engine;\n"
        ))
        .len(),
        1
    );
}

#[test]
fn the_purity_rule_can_fail() {
    let good = format!("//! x\n{DENIED}\n");
    assert!(purity(&source("src/engine/mod.rs", &good)).is_empty());
    assert_eq!(purity(&source("src/engine/mod.rs", "//! x\n")).len(), 1);
    assert_eq!(
        purity(&source("src/engine/a.rs", "use std::time::Instant;\n")).len(),
        1
    );
    assert_eq!(
        purity(&source(
            "src/engine/a.rs",
            "use std::collections::HashMap;\n"
        ))
        .len(),
        1
    );
    assert!(purity(&source("src/engine/a.rs", "let x = MyHashMap::new();\n")).is_empty());
    assert!(purity(&source("src/node/a.rs", "use std::time::Instant;\n")).is_empty());
}

#[test]
fn the_size_rule_can_fail() {
    let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    a();\n".repeat(lines - 2));
    assert!(sizes(&source("a.rs", &function(FUNCTION_LINES_MAX))).is_empty());
    assert_eq!(
        sizes(&source("a.rs", &function(FUNCTION_LINES_MAX + 1))).len(),
        1
    );
    let many = function(10).repeat(70);
    assert_eq!(sizes(&source("a.rs", &many)).len(), 1);
    assert_eq!(
        sizes(&source("a.rs", &"x".repeat(LINE_LETTERS_MAX + 1))).len(),
        1
    );
    let declared =
        "trait T {\n    fn f(\n        a: u8,\n    );\n".to_owned() + &"    // x\n".repeat(70);
    assert!(sizes(&source("a.rs", &declared)).is_empty());
}

#[test]
fn the_bans_can_fail() {
    let text = concat!("un", "safe { f() }\n");
    assert_eq!(bans(&source("src/a.rs", text)).len(), 1);
    assert!(bans(&source("sys/src/a.rs", text)).is_empty());
    assert!(
        bans(&source(
            "src/a.rs",
            concat!("#![forbid(un", "safe_code)]\n")
        ))
        .is_empty()
    );
    assert_eq!(bans(&source("src/a.rs", concat!("to", "do!()\n"))).len(), 1);
    assert_eq!(
        bans(&source("src/a.rs", concat!("#[ig", "nore]\n"))).len(),
        1
    );
    assert_eq!(header(&source("src/a.rs", "fn main() {}\n")).len(), 1);
}
