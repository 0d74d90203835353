// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The second stage: KVM, before any device is bound.

use std::sync::Arc;

use super::inspect::{Guest, Inspected, Source};
use crate::error::Error;
use crate::kvm::vm::Vm;

/// A guest with a VM, which has neither memory nor CPUs.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) source: Source,
    pub(super) vm: Arc<Vm>,
}

impl<'a> Inspected<'a> {
    /// Opens KVM and creates the VM, which has neither memory nor CPUs yet.
    pub fn open_kvm(self) -> Result<Opened<'a>, Error> {
        let vm = Vm::new()?;
        vm.check_cpus(self.guest.config.cpus.get())?;
        Ok(Opened {
            vm,
            guest: self.guest,
            source: self.source,
        })
    }
}
