// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where the log goes, and how its lines look.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use env_logger::{Builder, Target};
use log::LevelFilter;

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
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Some(path) = &config.log_file {
        let file = append(path).map_err(|source| vmm::FileError {
            what: "the log file",
            path: path.clone(),
            source,
        })?;
        builder
            .target(Target::Pipe(Box::new(Unblocked::new(file, WRITE_TIMEOUT))))
            .format(|out, record| {
                let (time, level) = (out.timestamp_millis(), record.level());
                writeln!(out, "{time} {level:<5} {}", record.args())
            });
    } else {
        builder
            .target(Target::Pipe(Box::new(Messages)))
            .format(|out, record| {
                let level = record.level().as_str().to_ascii_lowercase();
                writeln!(out, "pinvisor: {level}: {}", record.args())
            });
    }
    // Only the first one counts.
    let _ = builder.try_init();
    Ok(())
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
