// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One line of standard error that is drawn over again.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressDrawTarget, TermLike};

use vmm::console::nonblocking::Unblocked;

/// How long taking the line away may wait for a paused terminal.
const CLEAR_TIMEOUT: Duration = Duration::from_millis(200);
/// How often a second the line is drawn.
const RATE: u8 = 10;
/// Columns that stay free behind the line, where a terminal shows `^C`: it would break a full
/// line, and the first half of a broken one cannot be taken back.
const ROOM: usize = 4;
/// Where the size of the terminal is not known.
const COLUMNS: u16 = 80;
/// To the first column, and everything from there on away.
const CLEAR: &str = "\r\x1b[K";

/// Whether the line is on the screen.
static DRAWN: Mutex<bool> = Mutex::new(false);

fn drawn() -> MutexGuard<'static, bool> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a progress bar is drawn: over one line, if it is a terminal.
pub fn line() -> ProgressDrawTarget {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !io::stderr().is_terminal() {
        return ProgressDrawTarget::hidden();
    }
    ProgressDrawTarget::term_like_with_hz(Box::<Line>::default(), RATE)
}

/// Takes the line away and prints a message; the line comes again when there is progress.
pub fn print(message: &mut dyn FnMut()) {
    let mut drawn = drawn();
    if std::mem::take(&mut *drawn) {
        // A terminal that is paused keeps it.
        let _ = Unblocked::new(io::stderr(), CLEAR_TIMEOUT).write_all(CLEAR.as_bytes());
    }
    message();
}

/// The line. What is drawn comes in pieces, and goes to the screen when all are there.
#[derive(Debug, Default)]
struct Line(Mutex<String>);

impl Line {
    fn text(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn columns() -> usize {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        let columns = size.map_or(COLUMNS, |size| size.ws_col);
        let columns = if columns == 0 { COLUMNS } else { columns };
        usize::from(columns).saturating_sub(ROOM)
    }
}

/// As much of `text` as `columns` have room for. All its characters take one column.
fn cut(text: &str, columns: usize) -> &str {
    let end = text.char_indices().nth(columns).map(|(end, _)| end);
    text[..end.unwrap_or(text.len())].trim_end()
}

impl TermLike for Line {
    fn width(&self) -> u16 {
        u16::try_from(Self::columns()).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let printable = text.chars().filter(|character| !character.is_control());
        self.text().extend(printable);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.text().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut *self.text());
        let text = cut(&text, Self::columns());
        let mut drawn = drawn();
        if text.is_empty() && !*drawn {
            return Ok(());
        }
        *drawn = !text.is_empty();
        // A step does not wait for a paused terminal to show its progress.
        Unblocked::new(io::stderr(), Duration::ZERO).write_all(format!("{CLEAR}{text}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(cut("█░ 1 of 2   ", 80), "█░ 1 of 2");
        assert_eq!(cut("█░ 1 of 2", 4), "█░ 1");
        assert_eq!(cut("█░ 1 of 2", 0), "");
    }

    #[test]
    fn a_line_is_one_whatever_is_drawn() {
        let line = Line::default();
        line.write_str("before").unwrap();
        line.clear_line().unwrap();
        line.write_str("\r").unwrap();
        line.write_line("one\n").unwrap();
        line.write_str(" two\x1b").unwrap();
        assert_eq!(*line.text(), "one two");
    }
}
