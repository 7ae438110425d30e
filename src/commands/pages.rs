//! `cargo lambda-image completions` and `man`: what the command line tells of itself, where it is asked for.

use std::fs;

use crate::cli::values::ShellArg;
use crate::cli::{ManArgs, pages};
use crate::event::{Event, Session};
use crate::problem::{IoContext as _, Result};

/// Prints the completions of a shell.
pub fn completions(shell: ShellArg, session: &Session) {
    session.emit(&Event::Document { text: &pages::completions(shell) });
}

/// Writes the pages of the manual, and prints where each is.
///
/// # Errors
/// When a file cannot be written.
pub fn man(args: &ManArgs, session: &Session) -> Result<()> {
    let directory = &args.directory;
    fs::create_dir_all(directory).or_failed(|| format!("could not make `{}`", directory.display()))?;
    for (name, bytes) in pages::man_pages() {
        let path = directory.join(name);
        fs::write(&path, bytes).or_failed(|| format!("could not write `{}`", path.display()))?;
        session.emit(&Event::Document { text: &path.display().to_string() });
    }
    Ok(())
}
