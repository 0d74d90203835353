// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What depends on the CPU architecture of guest and host. Each architecture is a directory with the
//! items below; nothing outside of it depends on which one it is. What checks of the host need is in
//! `vmm/host/src/arch`.
//!
//! | question | items |
//! |---|---|
//! | Where are the machine's fixed addresses? | [`layout`], [`low`] |
//! | What does a VM need before memory and CPUs? | [`equip`], [`CpuFeatures`] |
//! | Which wired interrupts exist, and which GSIs are for messages? | [`irq`] |
//! | Which devices does every machine have? | [`connect`], [`serial_interrupt`] |
//! | Which kernel files can be booted, and how are they named? | [`open_kernel`], [`Protocol`], [`KERNEL_FORMATS`], [`RELOCATABLE_KERNELS`] |
//! | Which command lines keep a kernel from booting? | [`check_command_line`], [`check_linux_options`] |
//! | How is the machine described to a kernel? | [`Platform`], [`Handover`], [`Start`] |
//! | What is the guest's RAM, and what do its pieces cost? | [`memory_map`], [`MemoryMap`], [`Kind`], [`LowMemoryUse`], [`Overhead`], [`SECTION`], [`SAFE_EXTENTS`], [`memory_warnings`] |
//! | How do its CPUs begin, and which of their exits does no other architecture have? | [`Vcpus`], [`ArchExit`] |
//! | What can fail? | [`ArchError`], [`EntryError`] |

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::error::ArchError;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    acpi::Platform,
    boot::handover::{Handover, Start},
    boot::kernel_file::{KERNEL_FORMATS, Protocol, RELOCATABLE_KERNELS, open as open_kernel},
    boot::linux_options::check as check_linux_options,
    boot::low_memory::LowMemoryUse,
    boot::memory_map::{memory_map, warnings as memory_warnings},
    boot::params::check_command_line,
    e820::{Kind, MemoryMap, SAFE_EXTENTS},
    entry::EntryError,
    irq, layout,
    legacy::{connect, serial_interrupt},
    low,
    overhead::{Overhead, SECTION},
    ports::ArchExit,
    vcpus::Vcpus,
    vm::{CpuFeatures, equip},
};

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use x86_64::{acpi::AcpiError, boot::params::ParamsError, page_tables::NoRoomError};
