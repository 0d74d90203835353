// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Part of a file.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// `len` bytes of `file` from `offset` on.
#[derive(Clone, Copy, Debug)]
pub struct FileRange<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl<'a> FileRange<'a> {
    /// The first `len` bytes of `file`.
    #[must_use]
    pub fn first(file: &'a impl AsFd, len: u64) -> Self {
        Self::new(file, &(0..len))
    }

    /// The bytes of `file` in `range`; none if its end is before its start.
    #[must_use]
    pub fn new(file: &'a impl AsFd, range: &Range<u64>) -> Self {
        Self {
            file: file.as_fd(),
            offset: range.start,
            len: range.end.saturating_sub(range.start),
        }
    }
}
