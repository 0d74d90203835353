// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/kvm`, one VM, and its memslots.

use std::sync::{Arc, Mutex, PoisonError};

use address::Gpa;
use host::{Id, KvmObstacle};
use iommufd_backend::Mapping;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_allocator::IdAllocator;

use crate::arch;
use crate::error::explain::{ExitCode, Explain, Limits};
use crate::memory::FRAGMENTED;

/// What is wrong with `/dev/kvm`, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// `/dev/kvm` does not open.
    #[error("Cannot open /dev/kvm")]
    Open(#[source] kvm_ioctls::Error),
    /// The kernel's KVM lacks something that every guest needs.
    #[error("{0}")]
    Lacks(KvmObstacle),
    /// The guest's interrupt controller, which is of the kind of the host's, serves fewer CPUs.
    #[error(
        "The guest is to have {cpus} CPUs, but its interrupt controller, which must be of the host's kind (GICv2), \
         serves {most}"
    )]
    Cpus {
        /// CPUs wanted.
        cpus: u8,
        /// CPUs that it serves.
        most: u8,
    },
    /// A request was refused.
    #[error("KVM on the host refused: cannot {operation}")]
    Refused {
        /// What was asked for, as a verb phrase.
        operation: &'static str,
        /// Why not.
        source: kvm_ioctls::Error,
    },
    /// A memslot was refused.
    #[error("KVM on the host refused: cannot place {} KiB of memory at GPA {gpa}", len / 1024)]
    Slot {
        /// Its intended address.
        gpa: Gpa,
        /// Its length in bytes.
        len: u64,
        /// Why not.
        source: kvm_ioctls::Error,
    },
    /// All memslots are in use.
    #[error("KVM has no memslot left for {} KiB of memory at GPA {gpa}", len / 1024)]
    NoSlot {
        /// The memory's intended address.
        gpa: Gpa,
        /// Its length in bytes.
        len: u64,
    },
}

impl Explain for VmError {
    fn ids() -> Vec<&'static str> {
        vec!["vm"]
    }

    fn id(&self) -> &'static str {
        "vm"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match self {
            Self::Open(error) => match error.errno() {
                libc::ENOENT => {
                    "load KVM on the host: modprobe -a kvm_intel kvm_amd; if that fails, enable \
                     virtualisation (VT-x, AMD-V) in the host's firmware, or boot a host kernel \
                     with CONFIG_KVM_INTEL or CONFIG_KVM_AMD"
                }
                libc::EACCES => "run as root, or add the user to the group: usermod -aG kvm USER",
                _ => return None,
            },
            Self::Lacks(obstacle) => return Some(obstacle.hint()),
            Self::Cpus { most, .. } => return Some(format!("--cpus {most}")),
            Self::NoSlot { .. } => FRAGMENTED,
            Self::Refused { source, .. } | Self::Slot { source, .. } => refusal(source)?,
        };
        Some(text.to_owned())
    }

    fn check(&self, _: Limits) -> Option<Id> {
        matches!(self, Self::Open(_) | Self::Lacks(_)).then_some(Id::Kvm)
    }
}

/// What to do about a request that KVM refused with `error`.
fn refusal(error: &kvm_ioctls::Error) -> Option<&'static str> {
    match error.errno() {
        libc::EBUSY => Some(
            "another hypervisor uses the host CPU's virtualisation; this finds it: lsmod | grep \
             -i -e vbox -e vmmon",
        ),
        _ => None,
    }
}

/// A virtual machine with KVM's interrupt controllers and timer.
#[derive(Debug)]
pub struct Vm {
    kvm: Kvm,
    fd: VmFd,
    cpu: arch::CpuFeatures,
    controllers: arch::Controllers,
    most_slots: usize,
    slots: Mutex<IdAllocator>,
}

impl Vm {
    /// Makes a VM without memory or CPUs.
    ///
    /// # Errors
    /// [`VmError`]
    pub fn new() -> Result<Arc<Self>, VmError> {
        let refused = |operation| move |source| VmError::Refused { operation, source };
        let kvm = Kvm::new().map_err(VmError::Open)?;
        host::kvm_suffices(&kvm).map_err(VmError::Lacks)?;
        let cpu = arch::CpuFeatures::of(&kvm)?;
        let fd = uninterrupted(|| kvm.create_vm()).map_err(refused("create a VM"))?;
        let controllers = arch::equip(&fd)?;
        let most_slots = kvm.get_nr_memslots();
        let last = u32::try_from(most_slots.saturating_sub(1)).unwrap_or(u32::MAX);
        let slots = IdAllocator::new(0, last)
            .map_err(|_| VmError::Lacks(KvmObstacle::Lacks(Cap::NrMemslots)))?;
        Ok(Arc::new(Self {
            kvm,
            fd,
            cpu,
            controllers,
            most_slots,
            slots: Mutex::new(slots),
        }))
    }

    /// Whether the VM can have this number of CPUs.
    ///
    /// # Errors
    /// [`VmError::Cpus`]
    pub fn check_cpus(&self, cpus: u8) -> Result<(), VmError> {
        let most = self.controllers.most_cpus();
        match cpus > most {
            true => Err(VmError::Cpus { cpus, most }),
            false => Ok(()),
        }
    }

    /// Memslots that the VM can have.
    #[must_use]
    pub fn most_slots(&self) -> usize {
        self.most_slots
    }

    /// What KVM's CPUs can do here.
    #[must_use]
    pub fn cpu(&self) -> &arch::CpuFeatures {
        &self.cpu
    }

    /// The interrupt controllers.
    pub(crate) fn controllers(&self) -> &arch::Controllers {
        &self.controllers
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Makes vCPU `index`.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    pub fn create_vcpu(&self, index: u8) -> Result<VcpuFd, VmError> {
        let refused = |operation| move |source| VmError::Refused { operation, source };
        let mut vcpu = self
            .fd
            .create_vcpu(index.into())
            .map_err(refused("create a vCPU"))?;
        if self.kvm.check_extension(Cap::CoalescedPio) {
            let mapped = vcpu.map_coalesced_mmio_ring();
            mapped.map_err(refused("share the writes that it keeps"))?;
        }
        Ok(vcpu)
    }

    /// Has KVM keep writes of up to `len` bytes to `port` until a vCPU leaves the guest for another access to a port,
    /// if this kernel can (Linux 5.3, `KVM_CAP_COALESCED_PIO`). For a register that only says what that access is
    /// about.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "no other architecture has ports")
    )]
    pub fn keep_writes(&self, port: u16, len: u32) -> Result<(), VmError> {
        if !self.kvm.check_extension(Cap::CoalescedPio) {
            return Ok(());
        }
        let address = IoEventAddress::Pio(port.into());
        self.fd
            .register_coalesced_mmio(address, len)
            .map_err(|source| VmError::Refused {
                operation: "keep writes to a port",
                source,
            })
    }

    /// Where memslots come and go while the guest runs: has KVM, as far as this kernel can, forget what it knows of the
    /// one that is deleted, and not of all others with it.
    pub fn keep_other_slots(&self) {
        if let Err(error) = arch::keep_other_slots(&self.fd) {
            log::debug!("KVM looks all memory up again after a memslot was deleted: {error}");
        }
    }

    /// Maps `mapping` at `gpa` until the result is dropped.
    ///
    /// # Errors
    /// [`VmError::Slot`], [`VmError::NoSlot`]
    pub fn map(self: &Arc<Self>, gpa: Gpa, mapping: Arc<Mapping>) -> Result<Memslot, VmError> {
        self.map_with(gpa, mapping, 0)
    }

    /// The same for memory that the guest can only read. What it writes there is an access that
    /// the bus sees.
    ///
    /// # Errors
    /// [`VmError::Slot`], [`VmError::NoSlot`]
    pub fn map_read_only(
        self: &Arc<Self>,
        gpa: Gpa,
        mapping: Arc<Mapping>,
    ) -> Result<Memslot, VmError> {
        self.map_with(gpa, mapping, KVM_MEM_READONLY)
    }

    fn map_with(
        self: &Arc<Self>,
        gpa: Gpa,
        mapping: Arc<Mapping>,
        flags: u32,
    ) -> Result<Memslot, VmError> {
        let len = mapping.len();
        let index = self
            .slots()
            .allocate_id()
            .map_err(|_| VmError::NoSlot { gpa, len })?;
        let region = kvm_userspace_memory_region {
            slot: index,
            flags,
            guest_phys_addr: gpa.0,
            memory_size: len,
            userspace_addr: mapping.start().0,
        };
        // SAFETY: the range is the whole of a mapping into which no Rust reference exists, but
        // to the atomic words of a table, whose memslot the guest can only read, and to those of doorbells.
        // The memslot keeps it mapped until KVM has forgotten it.
        if let Err(source) = unsafe { self.fd.set_user_memory_region(region) } {
            self.free(index);
            return Err(VmError::Slot { gpa, len, source });
        }
        Ok(Memslot {
            vm: Arc::clone(self),
            index,
            gpa,
            mapping: Some(mapping),
        })
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, IdAllocator> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, index: u32) {
        if let Err(error) = self.slots().free_id(index) {
            log::error!("Cannot free memslot {index}: {error}");
        }
    }
}

/// Asks again as long as a signal interrupts the kernel at it.
fn uninterrupted<T>(
    mut ask: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match ask() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

/// Memory that the guest has at a guest-physical address, as long as this lives.
#[derive(Debug)]
pub struct Memslot {
    vm: Arc<Vm>,
    index: u32,
    gpa: Gpa,
    mapping: Option<Arc<Mapping>>,
}

impl Memslot {
    /// Takes the memory away from the guest. Nothing to do the second time.
    ///
    /// # Errors
    /// [`VmError::Slot`]; the guest has it still.
    pub fn delete(&mut self) -> Result<(), VmError> {
        let Some(mapping) = &self.mapping else {
            return Ok(());
        };
        let region = kvm_userspace_memory_region {
            slot: self.index,
            guest_phys_addr: self.gpa.0,
            ..Default::default()
        };
        // SAFETY: a length of 0 deletes the slot; no memory is handed over.
        unsafe { self.vm.fd.set_user_memory_region(region) }.map_err(|source| VmError::Slot {
            gpa: self.gpa,
            len: mapping.len(),
            source,
        })?;
        self.mapping = None;
        self.vm.free(self.index);
        Ok(())
    }
}

/// Takes all memory of a guest away. If nothing else holds its VM, that is closed first, which takes all memslots
/// with it; otherwise they are deleted one after the other, each of which waits for all readers of the list (`SRCU`
/// in virt/kvm/kvm_main.c kvm_swap_active_memslots).
pub fn delete_all(mut slots: Vec<Memslot>) {
    let Some(vm) = slots.first().map(|slot| Arc::clone(&slot.vm)) else {
        return;
    };
    let is_one = slots.iter().all(|slot| Arc::ptr_eq(&slot.vm, &vm));
    if is_one && Arc::strong_count(&vm) == slots.len() + 1 {
        // Memory stays mapped until KVM has forgotten it.
        let _mappings: Vec<_> = slots.iter_mut().map(|slot| slot.mapping.take()).collect();
        drop(slots);
        drop(vm);
    }
}

impl Drop for Memslot {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            log::error!("{error}; cannot remove it either");
            // KVM may still reach it: it must stay mapped.
            std::mem::forget(self.mapping.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use iommufd_backend::FileRange;

    use super::*;

    /// Two memslots of `vm`.
    fn with_memory(vm: &Arc<Vm>) -> Vec<Memslot> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1000).unwrap();
        let slot = |gpa| {
            let mut mapping = Mapping::reserve(0x1000, 0).unwrap();
            let part = FileRange::first(&file, 0x1000);
            mapping.place(0, part, "guest memory").unwrap();
            vm.map(Gpa(gpa), Arc::new(mapping)).unwrap()
        };
        vec![slot(0x1000), slot(0x2000)]
    }

    #[test]
    fn a_vm_that_nothing_else_holds_is_closed_with_its_memory() {
        let Ok(vm) = Vm::new() else { return };
        let held = Arc::downgrade(&vm);
        let slots = with_memory(&vm);
        let mapping = slots.first().and_then(|slot| slot.mapping.clone()).unwrap();
        drop(vm);
        delete_all(slots);
        assert_eq!(held.strong_count(), 0);
        assert_eq!(Arc::strong_count(&mapping), 1);
        delete_all(Vec::new());
    }

    #[test]
    fn a_vm_that_is_used_on_loses_its_memory() {
        let Ok(vm) = Vm::new() else { return };
        delete_all(with_memory(&vm));
        // Where memory is still there, KVM refuses other memory.
        delete_all(with_memory(&vm));
        assert_eq!(Arc::strong_count(&vm), 1);
    }

    #[test]
    fn what_a_signal_interrupts_is_asked_for_again() {
        let errno = |number| Err(kvm_ioctls::Error::new(number));
        let mut answers = [errno(libc::EINTR), errno(libc::EINTR), Ok(7), Ok(8)].into_iter();
        assert_eq!(uninterrupted(|| answers.next().unwrap()), Ok(7));
        let mut answers = [errno(libc::ENOMEM), Ok(9)].into_iter();
        assert_eq!(
            uninterrupted(|| answers.next().unwrap()),
            errno(libc::ENOMEM)
        );
    }
}
