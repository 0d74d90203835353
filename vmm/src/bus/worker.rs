// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Work that a function of the bus does beside the vCPUs.

use std::fmt;

/// A thread that accesses guest memory or raises interrupts for a function. Teardown stops all of them before it quiesces
/// the devices.
pub trait Worker: fmt::Debug + Send {
    /// Ends the work and waits for it: no access to guest memory follows.
    fn stop(self: Box<Self>);
}
