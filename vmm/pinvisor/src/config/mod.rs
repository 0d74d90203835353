// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration of a run: the options of the command line and of a file, and their
//! combination.

mod file;
mod options;

use std::path::PathBuf;

use vmm::config::{ConfineConfig, OnReset, ValidConfig};

pub use file::FileError;
pub use options::{DEVICE_HELP, DEVICE_VALUE, Missing, RunOptions};

/// Log, events, pidfile and time limit of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// How much is logged: 0 for warnings, 1 for what is done, 2 and more for everything.
    pub verbose: u8,
    /// Where the log goes, if not to standard error.
    pub log_file: Option<PathBuf>,
    /// A file that gets the events.
    pub event_file: Option<PathBuf>,
    /// An open descriptor that gets the events.
    pub event_fd: Option<u32>,
    /// The file that holds the process ID.
    pub pidfile: Option<PathBuf>,
    /// What to do if a guest restarts.
    pub on_reset: OnReset,
    /// How much the process is confined.
    pub confine: ConfineConfig,
}

/// A microVM to run, and what reports on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The microVM.
    pub guest: ValidConfig,
    /// What reports on it.
    pub host: HostConfig,
}
