// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Part of a file.

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
        Self {
            file: file.as_fd(),
            offset: 0,
            len,
        }
    }
}
