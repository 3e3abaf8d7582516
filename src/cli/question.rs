//! Asks before something that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use super::exit::Failure;

/// Is there a person who can be asked?
pub(super) fn somebody_is_there() -> bool {
    io::stdin().is_terminal()
}

/// Lets a person type `yes`. Without a terminal to ask on it is refused: silence is not consent.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !somebody_is_there() {
        let problem = "there is no terminal to ask on, and --yes was not given";
        return Err(Failure::refused(problem, "add --yes if you are sure"));
    }
    let mut err = io::stderr();
    let _ = write!(err, "{question} Type yes to go on: ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::refused(
        "not confirmed",
        "nothing was changed; type `yes` in full, or use --yes",
    ))
}
