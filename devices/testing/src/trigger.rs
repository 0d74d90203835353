// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The receiver of interrupts and resets.

use std::cell::Cell;
use std::convert::Infallible;

use vm_superio::Trigger;

/// Counts how often it was triggered.
#[derive(Debug)]
pub struct Count<'a>(pub &'a Cell<u32>);

impl Trigger for Count<'_> {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}
