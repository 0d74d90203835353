// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log's destination and format.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};

use crate::Error;
use crate::config::HostConfig;
use crate::screen::Messages;
use vmm::console::nonblocking::Unblocked;

/// A line is dropped if it cannot be written in this time: a paused terminal blocks no thread.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// Starts the log. Without a file it goes to standard error, with warnings only unless more is
/// asked for; a file gets what is done in any case, and the time.
///
/// # Errors
/// [`Error::Vmm`]
pub fn start(config: &HostConfig) -> Result<(), Error> {
    let level = match (config.verbose, &config.log_file) {
        (0, None) => LevelFilter::Warn,
        (0, Some(_)) | (1, _) => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let target = match &config.log_file {
        Some(path) => {
            let file = append(path).map_err(|source| vmm::FileError {
                what: "the log file",
                path: path.clone(),
                source,
            })?;
            Target::File(Mutex::new(Unblocked::new(file, WRITE_TIMEOUT)))
        }
        None => Target::Messages,
    };
    // Only the first one counts.
    if log::set_boxed_logger(Box::new(target)).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Where lines go. The level is `log`'s to check.
enum Target {
    File(Mutex<Unblocked<File>>),
    Messages,
}

impl Log for Target {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    /// Writes a line at once, so that those of several threads do not mix. A line that cannot be
    /// written is lost.
    fn log(&self, record: &Record<'_>) {
        let (level, text) = (record.level(), record.args());
        let _ = match self {
            Self::File(file) => {
                let time = humantime::format_rfc3339_millis(SystemTime::now());
                let line = format!("{time} {level:<5} {text}\n");
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(line.as_bytes())
            }
            Self::Messages => {
                let level = level.as_str().to_ascii_lowercase();
                let line = format!("pinvisor: {level}: {text}\n");
                Messages.write_all(line.as_bytes())
            }
        };
    }

    fn flush(&self) {}
}

/// Without waiting for the reader of a FIFO.
fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options()
        .append(true)
        .create(true)
        .custom_flags(flags)
        .open(path)
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn a_line_of_the_log_has_time_and_level() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = Target::File(Mutex::new(Unblocked::new(
            append(file.path()).unwrap(),
            WRITE_TIMEOUT,
        )));
        for level in [Level::Info, Level::Error] {
            let text = format_args!("{level} is logged");
            target.log(&Record::builder().level(level).args(text).build());
        }
        let log = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<_> = log.lines().map(|line| line.split_once("Z ")).collect();
        let [Some((time, info)), Some((_, error))] = lines[..] else {
            panic!("{log}");
        };
        assert_eq!(time.len(), "2026-01-31T23:59:59.999".len());
        assert_eq!(
            (info, error),
            ("INFO  INFO is logged", "ERROR ERROR is logged")
        );
    }
}
