// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether this processor takes interrupts.

pub use x86_64::instructions::hlt;
pub use x86_64::instructions::interrupts::{disable, enable, enable_and_hlt};
