// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory at the start of the address space that is no identity memory: this architecture has none.

use std::fs::File;

/// Bytes of it.
pub const SIZE: u64 = 0;

/// The memory itself: none.
///
/// # Errors
/// None.
pub fn allocate() -> std::io::Result<Option<File>> {
    Ok(None)
}
