//! Says in an administrator's words what the TOML parser says in its own.

use toml::de::Error;

use super::problem::{Problem, TextSpan};

/// Most lines with a syntax error that are reported.
const LINES_MAX: usize = 8;

/// One problem for each line with a syntax error, up to the first after which the parser can no
/// longer know what was meant, and [`LINES_MAX`] at most.
pub(super) fn explain(text: &str, errors: &[Error]) -> Vec<Problem> {
    let mut errors: Vec<(TextSpan, &str)> = errors
        .iter()
        .map(|error| {
            (
                error.span().unwrap_or(text.len()..text.len()),
                error.message(),
            )
        })
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    let line = |span: &TextSpan| {
        let before = text.as_bytes().iter().take(span.start);
        before.filter(|byte| **byte == b'\n').count()
    };
    errors.dedup_by_key(|(span, _)| line(span));
    let certain = errors
        .iter()
        .take_while(|(_, message)| is_local(message))
        .count();
    errors.truncate((certain + 1).min(LINES_MAX));
    errors
        .into_iter()
        .map(|(span, message)| explain_one(text, span, message))
        .collect()
}

/// Does the error leave the meaning of the lines below untouched?
fn is_local(message: &str) -> bool {
    message.starts_with("string values must be quoted") || message.starts_with("duplicate key")
}

fn explain_one(text: &str, span: TextSpan, message: &str) -> Problem {
    let found = text.get(span.clone()).unwrap_or_default();
    let begins_line = || {
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        line.trim().is_empty()
    };
    let (problem, remedy) = if found.starts_with(['“', '”', '„', '‘', '’', '«']) {
        (
            "these are typographic quotes".to_owned(),
            "use the plain quote: \"".to_owned(),
        )
    } else if message.starts_with("duplicate key") {
        twice(found)
    } else if message.starts_with("string values must be quoted") {
        unquoted(found)
    } else if message.starts_with("missing comma") && begins_line() {
        let remedy = "end it with `]` or `}`, or write `,` between its entries";
        (
            "the list or table above is not closed".to_owned(),
            remedy.to_owned(),
        )
    } else if found == ":" {
        (
            "a setting is written with `=`".to_owned(),
            "write `=` instead of `:`".to_owned(),
        )
    } else {
        match COMMON.iter().find(|(part, _, _)| message.contains(part)) {
            Some((_, problem, remedy)) => ((*problem).to_owned(), (*remedy).to_owned()),
            None => {
                let remedy = "each line is `name = value`, a `[header]`, or a remark after `#`";
                (format!("this is not TOML: {message}"), remedy.to_owned())
            }
        }
    };
    Problem::error(span, problem, remedy)
}

/// A part of the parser's message, what is wrong, and what to do. The first that fits counts.
const COMMON: [(&str, &str, &str); 9] = [
    (
        "escape",
        "a backslash has a meaning here",
        "write `\\\\`, or single quotes around the text",
    ),
    (
        "basic string",
        "the quotes are not closed",
        "end the text with a quote",
    ),
    (
        "literal string",
        "the quotes are not closed",
        "end the text with a quote",
    ),
    (
        "unclosed table",
        "the header is not closed",
        "end it as it begins: `[...]` or `[[...]]`",
    ),
    (
        "unclosed array",
        "the list is not closed",
        "end it with `]`",
    ),
    (
        "unclosed inline table",
        "the table is not closed",
        "end it with `}`",
    ),
    (
        "missing comma",
        "a comma is missing",
        "write `,` between the entries",
    ),
    (
        "key with no value",
        "there is no `=` and value",
        "write `name = value`, or `#` before a remark",
    ),
    (
        "unexpected key or value",
        "there is something after the value",
        "write `#` before a remark",
    ),
];

/// A value without quotes that is no number, date, true or false.
fn unquoted(found: &str) -> (String, String) {
    let remedy = if found.contains(char::is_whitespace) {
        "put text in quotes, and `#` before a remark".to_owned()
    } else {
        format!("write \"{found}\"")
    };
    (format!("`{found}` needs quotes"), remedy)
}

fn twice(found: &str) -> (String, String) {
    let remedy = match found {
        "node" | "link" | "task" | "object" => {
            "write the header in two brackets each time, such as [[node]]"
        }
        _ => "keep one of the two",
    };
    (
        format!("`{found}` is here for the second time"),
        remedy.to_owned(),
    )
}
