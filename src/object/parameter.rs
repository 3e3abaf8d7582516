//! Reads an object's parameters; each error names the key, what is wrong and what to write instead.

use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use crate::config::kind::ParameterError;

/// Longest program or path that is taken, in bytes: what the kernel takes as a path.
const TEXT_MAX: usize = 4_096;

/// Longest duration that is taken.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn wrong(
    key: &str,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> ParameterError {
    ParameterError {
        key: key.to_owned(),
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

pub(super) fn missing(key: &str, example: &str) -> ParameterError {
    wrong(
        "",
        format!("`{key}` is missing"),
        format!("add a line such as `{key} = {example}`"),
    )
}

/// A text, if the key is there.
pub(super) fn text<'t>(
    table: &'t Table,
    key: &str,
    example: &str,
) -> Result<Option<&'t str>, ParameterError> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if plain(text) => Ok(Some(text)),
        Some(_) => Err(wrong(
            key,
            format!("`{key}` must be text"),
            format!("such as {key} = {example}"),
        )),
    }
}

/// A path from the root, without `..`.
pub(super) fn path(
    table: &Table,
    key: &str,
    example: &str,
) -> Result<Option<PathBuf>, ParameterError> {
    let Some(text) = text(table, key, example)? else {
        return Ok(None);
    };
    let path = PathBuf::from(text);
    let plain = path
        .components()
        .all(|part| part != std::path::Component::ParentDir);
    if path.is_absolute() && plain {
        return Ok(Some(path.components().collect()));
    }
    let problem = format!("`{key}` must be a path from the root, without `..`");
    Err(wrong(key, problem, format!("such as {key} = {example}")))
}

/// A program and its arguments, if the key is there.
pub(super) fn command(table: &Table, key: &str) -> Result<Option<Vec<String>>, ParameterError> {
    let remedy = || format!("such as {key} = [\"/usr/bin/program\", \"argument\"]");
    let problem = format!("`{key}` must be a list: the program, then each argument");
    let Some(value) = table.get(key) else {
        return Ok(None);
    };
    let Value::Array(words) = value else {
        return Err(wrong(key, problem, remedy()));
    };
    let words: Option<Vec<String>> = words
        .iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect();
    match words {
        Some(words) if words.iter().all(|word| !word.contains('\0')) && !words.is_empty() => {
            if words[0].starts_with('/') {
                return Ok(Some(words));
            }
            let problem = format!("the program `{}` must be a path from the root", words[0]);
            Err(wrong(key, problem, remedy()))
        }
        Some(_) | None => Err(wrong(key, problem, remedy())),
    }
}

/// A duration such as "5s" or "200ms", if the key is there.
pub(super) fn duration(table: &Table, key: &str) -> Result<Option<Duration>, ParameterError> {
    let Some(text) = text(table, key, "\"5s\"")? else {
        return Ok(None);
    };
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() && duration <= DURATION_MAX => Ok(Some(duration)),
        Ok(_) => Err(wrong(key, format!("`{key}` is out of range"), "1ms to 24h")),
        Err(_) => {
            let problem = format!("`{text}` is not a duration");
            Err(wrong(
                key,
                problem,
                format!("such as {key} = \"5s\" or \"200ms\""),
            ))
        }
    }
}

/// Refuses keys of an inner table that nobody reads.
pub(super) fn only(table: &Table, within: &str, keys: &[&str]) -> Result<(), ParameterError> {
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let problem = format!("`{within}` has no key `{key}`");
            Err(wrong(
                &format!("{within}.{key}"),
                problem,
                format!("it has {}", keys.join(", ")),
            ))
        }
    }
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_MAX && !text.contains('\0')
}
