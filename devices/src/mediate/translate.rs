// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the addresses that a guest programs to those that its device needs.

use address::{BusAddr, Gpa};

pub use amdv1::Run;

/// The guest's memory with the addresses that its device needs.
///
/// It is asked on vCPU threads with the function locked: it must answer at once and must not
/// access the function. Each address that it gives must stay the guest's for as long as the
/// function exists.
pub trait Translate: Send {
    /// Where `gpa` lies and how many of the `length` bytes from there on are physically
    /// contiguous, at least one; `None` if `gpa` is not the guest's memory. An answer that is
    /// longer than `length` is taken as `length`.
    fn translate(&self, gpa: Gpa, length: u64) -> Option<Run>;
}

impl<F: Fn(Gpa, u64) -> Option<Run> + Send> Translate for F {
    fn translate(&self, gpa: Gpa, length: u64) -> Option<Run> {
        self(gpa, length)
    }
}

/// The last byte of `length` bytes from `first` on.
pub(super) fn last_of(first: BusAddr, length: u64) -> Option<BusAddr> {
    first.checked_add(length.checked_sub(1)?)
}
