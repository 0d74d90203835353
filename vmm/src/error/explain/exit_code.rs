// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Exit codes: where to look after an error.

use std::process;

/// The exit code of a process that ends with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter)]
#[repr(u8)]
pub enum ExitCode {
    /// The command line is wrong, or a file named on it.
    Usage = 1,
    /// This machine cannot run it.
    Host = 2,
    /// A device cannot be used.
    Device = 3,
    /// Guest memory is not available or does not suit.
    Memory = 4,
    /// The guest crashed.
    Guest = 5,
    /// The guest reports that something went wrong in it.
    GuestStatus = 6,
    /// The guest requested a restart: maybe after a panic.
    GuestReset = 7,
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code as Self
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        u8::from(code).into()
    }
}
