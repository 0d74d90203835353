// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! BAR0 as the guest sees it: no register of the device is behind it.
//!
//! A store changes the guest's own state and nothing else; the [controller](crate::controller) looks at that state and
//! acts. So a vCPU never waits for the device, and a store of any width, value or order has a defined result.

mod capabilities;
mod file;
mod layout;

pub use capabilities::Identity;
pub use file::{Change, Control, Registers, Shown, Store};
pub use layout::{Layout, LayoutError};
