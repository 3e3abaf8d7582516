//! The rules that texts share wherever they stand: names and paths.

use super::problem::{Problem, Problems};
use super::reader::{At, Section};

/// Longest name of a cluster, node, link, task or object, in characters.
pub const NAME_MAX: usize = 32;

/// The `name` of a table, which must be there and must be a good name.
///
/// A bad name is reported and returned all the same: what refers to it is then not reported too.
pub(super) fn read_name<'t>(
    section: &Section<'t>,
    what: &str,
    problems: &mut Problems,
) -> Option<At<&'t str>> {
    let name = section.required_string("name", problems)?;

    let length = name.value.chars().count();
    let rule = format!("write 1 to {NAME_MAX} of a-z, 0-9 and `-`");
    let problem = if length == 0 {
        format!("the name of a {what} is empty")
    } else if length > NAME_MAX {
        format!("the name of a {what} has {length} characters")
    } else if is_name(name.value) {
        return Some(name);
    } else {
        format!("`{}` is not a good name for a {what}", name.value)
    };
    let lower = name.value.to_lowercase();
    let other = |letter: char| !u8::try_from(letter).is_ok_and(is_letter);
    let parts = lower.split(other).filter(|part| !part.is_empty());
    let better = parts
        .collect::<Vec<_>>()
        .join("-")
        .trim_matches('-')
        .to_owned();
    let remedy = match better.len() {
        1..=NAME_MAX => format!("{rule}, such as `{better}`"),
        _ => rule,
    };
    problems.error(name.span.clone(), problem, remedy);
    Some(name)
}

/// Reports a name that is among the earlier ones.
pub(super) fn doubled(
    what: &str,
    name: &At<&str>,
    earlier: &[At<&str>],
    problems: &mut Problems,
) -> bool {
    let Some(first) = earlier.iter().find(|first| first.value == name.value) else {
        return false;
    };
    let problem = format!("two {what} with the name `{}`", name.value);
    let problem = Problem::error(name.span.clone(), problem, "give each one its own name");
    problems.push(problem.and_at(first.span.clone(), "also used here"));
    true
}

/// Reports a path that does not start at the root or cannot be one.
pub(super) fn absolute(key: &str, path: &At<&str>, problems: &mut Problems) {
    if !path.value.starts_with('/') || path.value.contains('\0') || path.value.len() > 4_095 {
        let problem = format!("`{key}` is not an absolute path");
        problems.error(
            path.span.clone(),
            problem,
            "write the whole path, starting with `/`",
        );
    }
}

/// Does a text follow the one rule for all names? It does not begin with a hyphen, so that a name
/// is never taken for an option of a command.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_letter) && !text.starts_with('-')
}

fn is_letter(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')
}
