// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers, descriptors and MSRs with which a CPU enters a kernel: in 64-bit mode
//! (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"), or in 32-bit mode as PVH has it
//! (Xen, docs/misc/pvh.pandoc).

use address::Gpa;
use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::cpuid::TooManyLeavesError;
use crate::arch::x86_64::low;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// `IA32_MTRR_DEF_TYPE`: MTRRs on, everything write-back unless the guest changes it.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE_WRITE_BACK: u64 = 0x806;
/// `IA32_MISC_ENABLE`: fast string operations.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;

/// Descriptors by index: null, 32-bit code, 64-bit code, data, task. Linux's boot protocol requires
/// its code at selector 0x10 and data at 0x18.
const GDT: [u64; 5] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x008f_8b00_0000_ffff,
];
const CODE_32: u16 = 1;
const CODE: u16 = 2;
const DATA: u16 = 3;
const TASK: u16 = 4;

/// Why a CPU cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// KVM refused.
    #[error("KVM on the host refused: cannot set {what} of a vCPU")]
    Kvm {
        /// What was to be set.
        what: &'static str,
        /// Why not.
        source: kvm_ioctls::Error,
    },
    /// Low memory did not take the descriptors.
    #[error("Cannot write the GDT to guest memory")]
    Write(#[from] vm_memory::GuestMemoryError),
    /// The CPU has too many CPUID leaves.
    #[error(transparent)]
    Cpuid(#[from] TooManyLeavesError),
}

/// Writes the descriptor table to [`low::GDT`].
///
/// # Errors
/// [`EntryError::Write`]
pub fn write_gdt(memory: &GuestMemoryMmap) -> Result<(), EntryError> {
    let bytes: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    Ok(memory.write_slice(&bytes, GuestAddress(low::GDT.0))?)
}

/// Where and how a kernel is entered. The description of its machine is at [`low::ZERO_PAGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode.
    Linux64 {
        /// Where it begins.
        at: Gpa,
        /// Root of the page tables.
        page_tables: Gpa,
    },
    /// In 32-bit mode without paging.
    Pvh {
        /// Where it begins.
        at: Gpa,
    },
}

/// Makes the CPU start at `entry`.
///
/// # Errors
/// [`EntryError::Kvm`]
pub fn set_registers(vcpu: &VcpuFd, entry: &Entry) -> Result<(), EntryError> {
    let failed = |what| move |source| EntryError::Kvm { what, source };
    let mut sregs = vcpu.get_sregs().map_err(failed("special registers"))?;
    sregs.gdt.base = low::GDT.0;
    sregs.gdt.limit = u16::try_from(size_of_val(&GDT) - 1).unwrap_or(u16::MAX);
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    for data in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *data = segment(DATA);
    }
    sregs.tr = segment(TASK);
    // Bit 1 is always set; interrupts are off.
    let mut regs = kvm_regs {
        rflags: 2,
        ..Default::default()
    };
    match entry {
        Entry::Linux64 { at, page_tables } => {
            sregs.cs = segment(CODE);
            sregs.cr0 = CR0_PE | CR0_PG;
            sregs.cr3 = page_tables.0;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            (regs.rip, regs.rsi) = (at.0, low::ZERO_PAGE.0);
        }
        Entry::Pvh { at } => {
            sregs.cs = segment(CODE_32);
            sregs.cr0 = CR0_PE;
            sregs.cr4 = 0;
            sregs.efer = 0;
            (regs.rip, regs.rbx) = (at.0, low::ZERO_PAGE.0);
        }
    }
    vcpu.set_sregs(&sregs)
        .map_err(failed("special registers"))?;
    vcpu.set_regs(&regs).map_err(failed("registers"))
}

/// Lets the guest's TSC run as fast as the host's does now, and returns its frequency in kHz if KVM
/// reports it.
///
/// By itself KVM takes the frequency that the host had measured when KVM was loaded. If the host
/// has measured it again since and found it higher, as it does if the CPU does not report it, and
/// the CPU cannot scale it, KVM leaves the vCPU without a scale (arch/x86/kvm/x86.c `set_tsc_khz`):
/// it then misjudges the guest's time, and the guest's APIC timer fires minutes late.
pub fn set_tsc_frequency(vcpu: &VcpuFd) -> Option<u32> {
    /// To `KVM_SET_TSC_KHZ`: the host's frequency.
    const HOST: u32 = 0;
    if let Err(error) = vcpu.set_tsc_khz(HOST) {
        log::debug!("Cannot set the TSC's frequency in KVM: {error}");
    }
    vcpu.get_tsc_khz().ok().filter(|khz| *khz > 0)
}

/// Sets what every CPU of a PC has after its firmware ran: FPU, MTRRs.
///
/// # Errors
/// [`EntryError::Kvm`]
pub fn set_reset_state(vcpu: &VcpuFd) -> Result<(), EntryError> {
    let failed = |what| move |source| EntryError::Kvm { what, source };
    let fpu = kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    };
    vcpu.set_fpu(&fpu).map_err(failed("the FPU"))?;
    for (index, data) in [
        (MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK),
        (MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
    ] {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        if let Ok(msrs) = Msrs::from_entries(&[entry]) {
            // A CPU of another vendor may lack it, which KVM reports by setting none.
            vcpu.set_msrs(&msrs).map_err(failed("MSRs"))?;
        }
    }
    Ok(())
}

/// The segment that descriptor `index` of [`GDT`] describes, as the CPU caches it.
fn segment(index: u16) -> kvm_segment {
    let entry = GDT[usize::from(index)];
    let bit = |at: u32| u8::from(entry >> at & 1 == 1);
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: index * 8,
        type_: u8::try_from(entry >> 40 & 0xf).unwrap_or(0),
        s: bit(44),
        dpl: 0,
        present: bit(47),
        avl: 0,
        l: bit(53),
        db: bit(54),
        g: bit(55),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
