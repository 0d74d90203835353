// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A running guest: its end, input and observers.

pub mod console;
pub(crate) mod device_notices;
mod error;
pub(crate) mod event_loop;
pub mod exit;
pub(crate) mod heartbeat;
pub mod limits;
pub mod machine_info;
pub mod own_file;
pub(crate) mod own_socket;
pub(crate) mod power_button;
pub(crate) mod threads;
pub mod timings;
pub(crate) mod vmm;

pub use error::RunError;
