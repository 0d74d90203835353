// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I/O ports, which are memory of the bridge's.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use address::Gpa;

use crate::bare::mmio::Mmio;

/// Bytes that a BAR of ports has at most (PCI Local Bus 3.0, 6.2.5.1).
const MOST: u64 = 256;

static BASE: AtomicU64 = AtomicU64::new(0);

/// Notes where port 0 is.
///
/// # Safety
/// All ports are there, mapped as a device's.
pub unsafe fn found(base: Gpa) {
    BASE.store(base.0, Relaxed);
}

/// The ports from `first` on.
///
/// # Safety
/// They are a device's that may be read and written at will.
pub unsafe fn space(first: u16) -> Mmio {
    let start = Gpa(BASE.load(Relaxed) + u64::from(first));
    // SAFETY: as this function's caller, and that of `found`, promise.
    unsafe { Mmio::new(start..start + MOST) }
}
