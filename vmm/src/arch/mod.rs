// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What depends on the CPU architecture of guest and host. Each architecture is a directory with the
//! items below; nothing outside of it depends on which one it is. What checks of the host need is in
//! `vmm/host/src/arch`.
//!
//! | question | items |
//! |---|---|
//! | Where are the machine's fixed addresses? | [`layout`], [`low`] |
//! | What do the host's bridges do to the addresses of devices? | [`host_bridges`](fn@host_bridges), [`HostBridges`] |
//! | What does a VM need before memory and CPUs? | [`equip`], [`Controllers`], [`CpuFeatures`] |
//! | How does a device that bypasses the caches see what was written? | [`clean_caches`] |
//! | What does it cost to delete a memslot? | [`keep_other_slots`] |
//! | Which wired interrupts exist, and which GSIs are for messages? | [`irq`] |
//! | Which devices does every machine have? | [`connect`], [`serial_interrupt`] |
//! | Which kernel files can be booted, and how are they named? | [`open_kernel`], [`Protocol`], [`KERNEL_FORMATS`], [`RELOCATABLE_KERNELS`], [`EFI_MACHINES`] |
//! | Which command lines keep a kernel from booting? | [`check_command_line`], [`check_linux_options`] |
//! | How is the machine described to a kernel? | [`Controllers::platform`], [`Handover`], [`Start`] |
//! | What is the guest's RAM, and what do its pieces cost? | [`memory_map`], [`MemoryMap`], [`LowMemoryUse`], [`Overhead`], [`SECTION`], [`TOO_MANY_PIECES`], [`memory_warnings`] |
//! | How do its CPUs begin, and which of their exits does no other architecture have? | [`Vcpus`], [`ArchExit`] |
//! | What can fail? | [`ArchError`], [`EntryError`] |

#[cfg(any(target_arch = "aarch64", test))]
#[cfg_attr(
    not(target_arch = "aarch64"),
    expect(dead_code, reason = "tested everywhere, used on aarch64")
)]
mod aarch64;
mod host_bridges;
mod overhead;
mod params;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use host_bridges::HostBridges;
pub(crate) use overhead::{Overhead, SECTION};
pub(crate) use params::check_command_line;

#[cfg(target_arch = "aarch64")]
pub use aarch64::error::ArchError;
#[cfg(target_arch = "x86_64")]
pub use x86_64::error::ArchError;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{
    cache::clean as clean_caches,
    devices::{connect, serial_interrupt},
    error::EntryError,
    exits::ArchExit,
    gic::Controllers,
    handover::{Handover, Start},
    host::host_bridges,
    irq,
    kernel_file::{
        EFI_MACHINES, KERNEL_FORMATS, Protocol, RELOCATABLE_KERNELS, check_linux_options,
        open_kernel,
    },
    layout, low,
    memory_map::{
        LowMemoryUse, MemoryMap, TOO_MANY_PIECES, memory_map, warnings as memory_warnings,
    },
    vcpus::Vcpus,
    vm::{CpuFeatures, equip, keep_other_slots},
};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    boot::handover::{Handover, Start},
    boot::kernel_file::{
        EFI_MACHINES, KERNEL_FORMATS, Protocol, RELOCATABLE_KERNELS, open as open_kernel,
    },
    boot::linux_options::check as check_linux_options,
    boot::low_memory::LowMemoryUse,
    boot::memory_map::{memory_map, warnings as memory_warnings},
    e820::{MemoryMap, TOO_MANY_PIECES},
    entry::EntryError,
    host::host_bridges,
    irq, layout,
    legacy::{connect, serial_interrupt},
    low,
    ports::ArchExit,
    vcpus::Vcpus,
    vm::{Controllers, CpuFeatures, clean_caches, equip, keep_other_slots},
};

#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use {
    params::ParamsError,
    x86_64::{acpi::AcpiError, page_tables::NoRoomError},
};
