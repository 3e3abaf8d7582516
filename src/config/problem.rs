//! What is wrong with a configuration and what to write instead, shown with file, line and caret.
//!
//! Every check of this module and every check of the host ends in a [`Problem`]: the reader is an
//! administrator whose cluster does not start, so each one carries a remedy that can be typed.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

/// Bytes of the configuration's text, from the first to one past the last.
pub type TextSpan = Range<usize>;

/// Most problems that are kept of one text; the last one then says that there are more.
/// Whoever has this many repairs the first and asks again.
pub const PROBLEMS_MAX: usize = 32;

/// Does the problem forbid to use the configuration?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The cluster works, but less safely or less well than it could.
    Warning,
    /// The configuration is refused.
    Error,
}

/// One thing that is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Refused, or only worth a word.
    pub severity: Severity,
    /// Where the caret goes; none if the text has no place for it.
    pub span: Option<TextSpan>,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// A second place that belongs to it, with a few words on why.
    pub also: Option<(TextSpan, String)>,
}

impl Problem {
    /// Something that forbids to use the configuration.
    pub(super) fn error(
        span: impl Into<Option<TextSpan>>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem {
            severity: Severity::Error,
            span: span.into(),
            problem: problem.into(),
            remedy: remedy.into(),
            also: None,
        }
    }

    /// Something to know before it hurts.
    pub(super) fn warning(
        span: impl Into<Option<TextSpan>>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(span, problem, remedy)
        }
    }

    /// The same problem with a second place in the text.
    #[must_use]
    pub(super) fn and_at(mut self, span: TextSpan, label: impl Into<String>) -> Problem {
        self.also = Some((span, label.into()));
        self
    }
}

/// Problems as they are found, in any order.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Notes one more.
    pub(super) fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Shorthand for the most common case.
    pub(super) fn error(
        &mut self,
        span: impl Into<Option<TextSpan>>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(Problem::error(span, problem, remedy));
    }

    /// The errors if there are any, else the warnings; both in the order of the text.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, ConfigErrors> {
        let place = |problem: &Problem| problem.span.as_ref().map_or(0, |span| span.start);
        self.list.sort_by_key(place);
        let (errors, warnings): (Vec<Problem>, Vec<Problem>) = self
            .list
            .into_iter()
            .partition(|problem| problem.severity == Severity::Error);
        if errors.is_empty() {
            Ok(warnings)
        } else {
            Err(ConfigErrors::new(errors))
        }
    }
}

/// Why a text is not a configuration: at least one problem, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Keeps the first [`PROBLEMS_MAX`] and says how many more there are.
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigErrors {
        assert!(!problems.is_empty(), "a refusal has a reason");
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        if more > 0 {
            problems.truncate(PROBLEMS_MAX);
            let said = format!("{more} more problems are not shown");
            problems.push(Problem::error(
                None,
                said,
                "correct the ones above and check again",
            ));
        }
        ConfigErrors { problems }
    }

    /// All of them; never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The whole report without colour, ending in a line break.
    #[must_use]
    pub fn render(&self, file_name: &str, text: &str) -> String {
        render(&self.problems, file_name, text, Look::Plain)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems[0].problem)?;
        match self.problems.len() - 1 {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more problem)"),
            more => write!(f, " (and {more} more problems)"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For files, mails and terminals without colour.
    Plain,
    /// With the escape sequences of a terminal.
    Coloured,
}

/// Problems of `text` with file, line, caret and remedy, in the given order, each ending in an
/// empty line but the last.
///
/// `text` should be what the problems were found in; another text shows other lines, no more.
#[must_use]
pub fn render(problems: &[Problem], file_name: &str, text: &str, look: Look) -> String {
    let renderer = match look {
        Look::Plain => Renderer::plain(),
        Look::Coloured => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut shown = String::new();
    for problem in problems {
        if !shown.is_empty() {
            shown.push('\n');
        }
        shown.push_str(&renderer.render(&[group(problem, file_name, text)]));
        shown.push('\n');
    }
    shown
}

fn group<'a>(problem: &'a Problem, file_name: &'a str, text: &'a str) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(problem.problem.as_str());
    let group = match &problem.span {
        Some(span) => {
            let primary = AnnotationKind::Primary.span(within(text, span));
            let mut snippet = Snippet::source(text).path(file_name).annotation(primary);
            if let Some((span, label)) = &problem.also {
                let context = AnnotationKind::Context.span(within(text, span));
                snippet = snippet.annotation(context.label(label.as_str()));
            }
            title.element(snippet)
        }
        None => title.element(Origin::path(file_name)),
    };
    group.element(Level::HELP.message(normalize_untrusted_str(&problem.remedy)))
}

/// The part of a span that lies in the text, on whole characters and on its first line only.
fn within(text: &str, span: &TextSpan) -> TextSpan {
    let boundary = |at: &usize| text.is_char_boundary(*at);
    let start = (0..=span.start.min(text.len()))
        .rev()
        .find(boundary)
        .unwrap_or(0);
    let end = (span.end.max(start)..text.len())
        .find(boundary)
        .unwrap_or(text.len());
    let line = text[start..end]
        .find(['\n', '\r'])
        .map_or(end, |length| start + length);
    start..line
}
