// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Permission for a guest to enable bus mastering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag shared between a passed-through function and the part that decides that the guest uses
/// which addresses its device must be given. Clones are the same flag.
///
/// While it is closed the function's hardware Bus Master Enable stays off, whatever the guest
/// writes to COMMAND; the guest reads back what it wrote. Once it is open, the function's next
/// config access (a read will do) brings the hardware in line with COMMAND.
#[derive(Clone, Debug)]
pub struct BusMasterGate(Arc<AtomicBool>);

impl BusMasterGate {
    /// A gate that lets the guest turn bus mastering on: its memory is where its devices
    /// expect it.
    #[must_use]
    pub fn opened() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// A gate that does not, until [`open`](Self::open).
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Lets the guest turn bus mastering on.
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Stops letting it; takes effect like [`open`](Self::open), at the next config access.
    pub fn close(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Whether the guest may.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
