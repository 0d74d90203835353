// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Leaves free memory as single pages, each beside one that is taken, while a command runs.

use std::fs;
use std::io;

use super::pages::{Backing, Mapping, free_mib, pagemap};
use crate::error::{AtPath, Result};

/// Bytes that are taken at a time.
const CHUNK: usize = 2 << 20;

/// What to leave besides the single pages.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Scatter {
    /// MiB to leave as they are.
    #[arg(long, default_value_t = 60)]
    leave_mib: usize,
}

/// Takes all memory but what is to be left, gives every page with an odd frame number back, and runs the command. The
/// kernel cannot merge such a page with its neighbour (mm/page_alloc.c, `__free_one_page`).
///
/// # Errors
/// [`Error::File`](crate::Error::File), or what the command's start returns.
pub fn run(scatter: Scatter, command: &[String]) -> Result<i32> {
    // The kernel must not put the pieces together again: neither does that leave single pages, nor may the guest's
    // pages go away for moments, to be found pinned.
    for (path, value) in [
        ("/proc/sys/vm/compaction_proactiveness", "0"),
        ("/proc/sys/vm/extfrag_threshold", "1000"),
    ] {
        fs::write(path, value).at("write", path)?;
    }
    let pagemap = pagemap()?;
    let mut taken = Vec::new();
    while free_mib()? > scatter.leave_mib {
        match Mapping::new(CHUNK, Backing::Small) {
            Ok(mapping) => taken.push(mapping),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => break,
            Err(source) => return Err(source).at("map", "memory to scatter"),
        }
    }
    for mapping in &taken {
        for (page, frame) in mapping.frames(&pagemap)?.into_iter().enumerate() {
            if frame.is_some_and(|frame| frame % 2 == 1) {
                mapping
                    .free_page(page)
                    .at("free", "a page of memory to scatter")?;
            }
        }
    }
    super::run(command)
}
