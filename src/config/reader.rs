//! Walks a parsed document by hand: a table with its known keys, a value with its place.
//!
//! Each method reports what is wrong with its key and returns `None`; the caller goes on with the
//! next key, so that one run shows all mistakes. Bounded by the length of the text.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems, TextSpan};
use super::schema::{self, Key, Schema, listed, nearest};
use crate::time::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: TextSpan,
}

/// One table of the file.
pub(super) struct Section<'t> {
    title: String,
    span: Option<TextSpan>,
    table: &'t DeTable<'t>,
    keys: Vec<Key>,
    /// Known keys that an unknown one was probably meant as: not reported as missing too.
    misspelt: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Opens a table and reports the keys it should not have.
    pub(super) fn open(
        schema: &Schema,
        span: Option<TextSpan>,
        table: &'t DeTable<'t>,
        problems: &mut Problems,
    ) -> Section<'t> {
        Section::open_with(schema.title, schema.keys.to_vec(), span, table, problems)
    }

    /// The same for a table whose keys are known only now.
    pub(super) fn open_with(
        title: &str,
        keys: Vec<Key>,
        span: Option<TextSpan>,
        table: &'t DeTable<'t>,
        problems: &mut Problems,
    ) -> Section<'t> {
        let title = title.to_owned();
        let mut section = Section {
            title,
            span,
            table,
            keys,
            misspelt: Vec::new(),
        };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !section.keys.iter().any(|known| known.name == name) {
                section.unknown(name, key.span(), problems);
            }
        }
        section
    }

    /// Opens a table whose other keys nobody can judge.
    pub(super) fn of_unknown_kind(schema: &Schema, table: &At<&'t DeTable<'t>>) -> Section<'t> {
        Section {
            title: schema.title.to_owned(),
            span: Some(table.span.clone()),
            table: table.value,
            keys: schema.keys.to_vec(),
            misspelt: Vec::new(),
        }
    }

    fn unknown(&mut self, name: &str, span: TextSpan, problems: &mut Problems) {
        let known = || self.keys.iter().map(|key| key.name);
        let elsewhere = || {
            let holds = |schema: &&&Schema| schema.keys.iter().any(|key| key.name == name);
            schema::ALL.iter().find(holds)
        };
        let remedy = if let Some(meant) = nearest(name, known()) {
            self.misspelt.push(meant);
            format!("did you mean `{meant}`?")
        } else if name == "revision" {
            "move `revision` to the top of the file, above the first `[`".to_owned()
        } else if let Some(schema) = elsewhere() {
            format!(
                "`{name}` belongs to {}: move it there, or remove it",
                schema.title
            )
        } else {
            format!("remove it; {} knows {}", self.title, listed(known()))
        };
        problems.error(span, format!("{} has no key `{name}`", self.title), remedy);
    }

    /// Did an unknown key look like a mistyped one of these?
    pub(super) fn any_misspelt(&self) -> bool {
        !self.misspelt.is_empty()
    }

    /// Where the table begins: its header, or its braces.
    pub(super) fn span(&self) -> Option<TextSpan> {
        self.span.clone()
    }

    /// Whatever the key holds.
    pub(super) fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Is there nothing under the key, and no report of a mistyped one either?
    pub(super) fn lacks(&self, key: &str) -> bool {
        let nothing = |value: &Spanned<DeValue<'_>>| {
            value
                .get_ref()
                .as_array()
                .is_some_and(|entries| entries.is_empty())
        };
        self.value(key).is_none_or(nothing) && !self.misspelt.contains(&key)
    }

    /// All keys with their values, sorted by name.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Spanned<DeValue<'t>>)> {
        self.table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// Reports a key that must be there, unless a mistyped one was reported already.
    pub(super) fn missing(&self, key: &'static str, problems: &mut Problems) {
        if !self.misspelt.contains(&key) {
            let example = self.example(key);
            let title = &self.title;
            let problem = format!("{title} has no `{key}`");
            problems.error(self.span(), problem, format!("add `{example}`"));
        }
    }

    /// Text, or a report.
    pub(super) fn string(&self, key: &str, problems: &mut Problems) -> Option<At<&'t str>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At {
                value: text.as_ref(),
                span: value.span(),
            }),
            _ => self.wrong_type(key, value, "text in quotes", problems),
        }
    }

    /// Text that must be there.
    pub(super) fn required_string(
        &self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<At<&'t str>> {
        if self.value(key).is_none() {
            self.missing(key, problems);
        }
        self.string(key, problems)
    }

    /// A whole number within `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        range: RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<At<i64>> {
        let value = self.value(key)?;
        let DeValue::Integer(written) = value.get_ref() else {
            return self.wrong_type(key, value, "a whole number without quotes", problems);
        };
        let (low, high) = (range.start(), range.end());
        match i64::from_str_radix(written.as_str(), written.radix()) {
            Ok(number) if range.contains(&number) => Some(At {
                value: number,
                span: value.span(),
            }),
            Ok(_) | Err(_) => {
                let problem = format!("`{key}` is out of range: {written}");
                let remedy = format!("write a number from {low} to {high}");
                problems.error(value.span(), problem, remedy);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            _ => self.wrong_type(key, value, "true or false, without quotes", problems),
        }
    }

    /// A length of time such as `"500ms"`, within `range`.
    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Span>,
        problems: &mut Problems,
    ) -> Option<At<Span>> {
        let value = self.value(key)?;
        let (written, span) = match value.get_ref() {
            DeValue::String(text) => (text.as_ref(), value.span()),
            DeValue::Integer(number) => {
                let problem = format!("`{key}` is a number without a unit");
                let remedy = format!("write the unit and quotes, such as `{key} = \"{number}ms\"`");
                problems.error(value.span(), problem, remedy);
                return None;
            }
            _ => return self.wrong_type(key, value, "a time in quotes", problems),
        };
        let Some(length) = parse_span(written) else {
            let problem = format!("`{written}` is not a length of time");
            let remedy = format!(
                "write a number and its unit (ms, s, m, h), such as `{}`",
                self.example(key)
            );
            problems.error(span, problem, remedy);
            return None;
        };
        if range.contains(&length) {
            return Some(At {
                value: length,
                span,
            });
        }
        let way = if length < *range.start() {
            "short"
        } else {
            "long"
        };
        let (low, high) = (shown(*range.start()), shown(*range.end()));
        let problem = format!("`{key}` is too {way}: {written}");
        problems.error(span, problem, format!("write a time from {low} to {high}"));
        None
    }

    /// One table: `[key]`.
    pub(super) fn table(&self, key: &str, problems: &mut Problems) -> Option<At<&'t DeTable<'t>>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(At {
                value: table,
                span: value.span(),
            }),
            DeValue::Array(_) => {
                let header = self.example(key);
                let problem = format!("{header} is written as a list");
                problems.error(
                    value.span(),
                    problem,
                    format!("write {header} once, in single brackets"),
                );
                None
            }
            _ => self.wrong_type(key, value, "a table", problems),
        }
    }

    /// Any number of tables: `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, key: &str, problems: &mut Problems) -> Vec<At<&'t DeTable<'t>>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        match value.get_ref() {
            DeValue::Array(entries) => {
                for entry in entries.iter() {
                    match entry.get_ref() {
                        DeValue::Table(table) => {
                            found.push(At {
                                value: table,
                                span: entry.span(),
                            });
                        }
                        _ => {
                            self.wrong_type::<()>(key, entry, "a table", problems);
                        }
                    }
                }
            }
            DeValue::Table(_) => {
                let header = self.example(key);
                let problem =
                    format!("there can be several `{key}`, so its header needs two brackets");
                problems.error(value.span(), problem, format!("write {header}"));
            }
            _ => {
                self.wrong_type::<()>(key, value, "a list of tables", problems);
            }
        }
        found
    }

    /// A list of texts.
    pub(super) fn strings(
        &self,
        key: &str,
        problems: &mut Problems,
    ) -> Option<At<Vec<At<&'t str>>>> {
        let value = self.value(key)?;
        let DeValue::Array(entries) = value.get_ref() else {
            return self.wrong_type(key, value, "a list", problems);
        };
        let mut found = Vec::new();
        for entry in entries.iter() {
            match entry.get_ref() {
                DeValue::String(text) => {
                    found.push(At {
                        value: text.as_ref(),
                        span: entry.span(),
                    });
                }
                _ => return self.wrong_type(key, entry, "a list of texts in quotes", problems),
            }
        }
        Some(At {
            value: found,
            span: value.span(),
        })
    }

    /// Reports a value of another type than the key has.
    pub(super) fn wrong_type<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        let problem = format!(
            "`{key}` must be {wanted}, not {}",
            type_name(value.get_ref())
        );
        let remedy = format!("write it like `{}`", self.example(key));
        problems.push(Problem::error(value.span(), problem, remedy));
        None
    }

    fn example(&self, key: &str) -> &'static str {
        self.keys
            .iter()
            .find(|known| known.name == key)
            .map_or("", |known| known.example)
    }
}

/// The whole number that a value is, if it is one.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else {
        return None;
    };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A length of time as people write it: `500ms`, `10s`, `1h 30m`.
pub(super) fn parse_span(written: &str) -> Option<Span> {
    let length = humantime::parse_duration(written).ok()?;
    u64::try_from(length.as_nanos()).ok().map(Span)
}

/// A length of time as people write it, without blanks.
pub(super) fn shown(span: Span) -> String {
    humantime::format_duration(Duration::from_nanos(span.0))
        .to_string()
        .replace(' ', "")
}

/// A value with its numbers read; `Err` is the place of a number that is too large.
pub(super) fn plain_value(value: &Spanned<DeValue<'_>>) -> Result<toml::Value, TextSpan> {
    Ok(match value.get_ref() {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(toml::Value::Integer)
            .map_err(|_| value.span())?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(toml::Value::Float)
            .map_err(|_| value.span())?,
        DeValue::Boolean(truth) => toml::Value::Boolean(*truth),
        DeValue::Datetime(moment) => toml::Value::Datetime(*moment),
        DeValue::Array(entries) => {
            toml::Value::Array(entries.iter().map(plain_value).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => toml::Value::Table(plain_table(table)?),
    })
}

/// [`plain_value`] for a table.
pub(super) fn plain_table(table: &DeTable<'_>) -> Result<toml::Table, TextSpan> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        Ok((key.to_string(), plain_value(value)?))
    };
    table.iter().map(entry).collect()
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
