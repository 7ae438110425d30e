//! stderr as lines and bars share it, and how wide it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::TermLike;

use super::text::tame;

/// stderr for logs, which are written past the screen.
pub(super) struct Stderr {
    /// Whether nothing may be read as a command to a runner.
    pub tame: bool,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A log's events come whole.
        match std::str::from_utf8(bytes) {
            Ok(text) if self.tame => io::stderr().write_all(tame(text).as_bytes()).map(|()| bytes.len()),
            _ => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether stderr ends in a file.
pub(super) fn stderr_is_a_file() -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    stderr.and_then(|file| file.metadata()).is_ok_and(|found| found.is_file())
}

/// The columns bars get where nothing tells how many there are.
const DEFAULT_COLUMNS: u16 = 80;

/// How wide stderr is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns {
    /// As wide as the terminal is at that moment.
    OfStderr,
    /// So many columns.
    Fixed(u16),
    /// A file or pipe.
    Unlimited,
}

/// stderr. What cannot be written there is lost: nobody is left to be told.
///
/// Bars are drawn piece by piece, and the pieces are written as a whole: in between, a terminal that echoes Ctrl-C
/// would put it into a line that was just cleared, the bar behind it would wrap, and a piece of it would stay.
#[derive(Clone)]
pub(super) struct Screen {
    stderr: Arc<Mutex<Box<dyn Write + Send>>>,
    drawing: Arc<Mutex<String>>,
    columns: Columns,
}

impl Screen {
    pub(super) fn new(stderr: Box<dyn Write + Send>, columns: Columns) -> Self {
        Self { stderr: Arc::new(Mutex::new(stderr)), drawing: Arc::default(), columns }
    }

    /// How many columns a line may have, if there is a limit.
    pub(super) fn columns(&self) -> Option<u16> {
        match self.columns {
            Columns::OfStderr => console::Term::stderr().size_checked().map(|(_, columns)| columns),
            Columns::Fixed(columns) => Some(columns),
            Columns::Unlimited => None,
        }
    }

    /// Writes text as a whole.
    pub(super) fn print(&self, text: &str) {
        let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Adds text to what the bars draw next.
    pub(super) fn draw(&self, text: &str) {
        self.drawing.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    /// Writes what was drawn, from the first column and back to it. A bar fills its line to the last column, where what
    /// the terminal echoes of Ctrl-C would begin a line more; at the first column it hides two blanks, and is
    /// overwritten.
    pub(super) fn show(&self) {
        let drawing = std::mem::take(&mut *self.drawing.lock().unwrap_or_else(PoisonError::into_inner));
        if !drawing.is_empty() {
            self.print(&format!("\r{drawing}\r"));
        }
    }

    fn escape(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.write_str(&format!("\x1b[{count}{direction}")) }
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Screen({:?})", self.columns)
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.columns().unwrap_or(DEFAULT_COLUMNS)
    }

    fn height(&self) -> u16 {
        const DEFAULT_ROWS: u16 = 24;
        match self.columns {
            Columns::OfStderr => console::Term::stderr().size_checked().map_or(DEFAULT_ROWS, |(rows, _)| rows),
            Columns::Fixed(_) | Columns::Unlimited => DEFAULT_ROWS,
        }
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.write_str(&format!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.draw(s);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    /// Ends a drawing of bars.
    fn flush(&self) -> io::Result<()> {
        self.show();
        Ok(())
    }
}
