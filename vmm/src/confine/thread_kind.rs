// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of threads that a run has.

use std::cell::Cell;

use strum::{EnumIter, IntoStaticStr};

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ThreadKind {
    /// The event loop, and the release of everything.
    Main,
    /// A CPU of a guest without devices.
    Vcpu,
    /// A CPU of a guest with devices.
    VcpuDevices,
    /// The thread of a guarded NVMe controller.
    GuardedNvme,
    /// What writes the guest's output.
    SerialOutput,
}

impl ThreadKind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// A vCPU of a guest that has devices or has none.
    #[must_use]
    pub fn vcpu(has_devices: bool) -> Self {
        match has_devices {
            true => Self::VcpuDevices,
            false => Self::Vcpu,
        }
    }
}

thread_local! {
    static CURRENT: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// The kind of this thread, once it is confined. May be called in a signal handler.
#[must_use]
pub fn current() -> Option<ThreadKind> {
    CURRENT.get()
}

/// This thread is confined.
pub(super) fn begin(kind: ThreadKind) {
    CURRENT.set(Some(kind));
}
