// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The second stage: KVM, before any device is bound.

use std::sync::Arc;

use super::inspect::{Guest, Inspected, Source};
use crate::error::Error;
use crate::kvm::vm::{Vm, VmError};

/// A guest whose devices may be bound: KVM is available.
///
/// The VM is beside it, because it belongs to the address space of the process that creates it
/// (virt/kvm/kvm_main.c kvm_create_vm), which need not be the process that binds the devices.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) source: Source,
}

impl<'a> Inspected<'a> {
    /// Opens KVM and creates the VM, which has neither memory nor CPUs yet.
    pub fn open_kvm(self) -> Result<(Opened<'a>, Arc<Vm>), Error> {
        let vm = open_vm(&self.guest)?;
        let Self { guest, source } = self;
        Ok((Opened { guest, source }, vm))
    }

    /// Looks for KVM, which another process is to open.
    pub fn expect_kvm(self) -> Result<Opened<'a>, Error> {
        rustix::fs::stat("/dev/kvm")
            .map_err(|errno| VmError::Open(kvm_ioctls::Error::new(errno.raw_os_error())))?;
        let Self { guest, source } = self;
        Ok(Opened { guest, source })
    }
}

/// A VM that can have the CPUs of `guest`.
pub(super) fn open_vm(guest: &Guest<'_>) -> Result<Arc<Vm>, Error> {
    let vm = Vm::new()?;
    vm.check_cpus(guest.config.cpus.get())?;
    Ok(vm)
}
