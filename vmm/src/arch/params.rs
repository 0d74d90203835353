// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why boot parameters cannot be written, and which command lines a kernel accepts.

use vm_memory::GuestMemoryError;

use super::layout::COMMAND_LINE_ROOM;

/// Why boot parameters cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// The command line is too long.
    #[error(
        "The guest kernel's command line has {length} bytes, but that kernel accepts at most {most}"
    )]
    CommandLineTooLong {
        /// Its length in bytes.
        length: usize,
        /// What the kernel or its place in memory takes.
        most: usize,
    },
    /// The command line has a character in it that ends it.
    #[error("The guest kernel's command line contains a NUL character")]
    CommandLineNul,
    /// The kernel would hang with an option on the command line.
    #[error("The guest kernel cannot boot with {word} on its command line: {reason}")]
    Unbootable {
        /// The option as given.
        word: String,
        /// What it would miss.
        reason: &'static str,
    },
    /// The memory map does not fit its place.
    #[error(
        "The guest's memory map has {entries} entries, too many for the space in its low memory"
    )]
    MapTooLong {
        /// Entries in all.
        entries: usize,
    },
    /// Guest memory did not take it.
    #[error("Cannot write boot parameters to guest memory")]
    Write(#[from] GuestMemoryError),
}

/// Refuses a command line that is not for a kernel that takes `most` bytes, or for its place.
///
/// # Errors
/// [`ParamsError::CommandLineTooLong`], [`ParamsError::CommandLineNul`]
pub fn check_command_line(line: &str, most: usize) -> Result<(), ParamsError> {
    let most = most.min(COMMAND_LINE_ROOM);
    if line.len() > most {
        return Err(ParamsError::CommandLineTooLong {
            length: line.len(),
            most,
        });
    }
    if line.contains('\0') {
        return Err(ParamsError::CommandLineNul);
    }
    Ok(())
}
