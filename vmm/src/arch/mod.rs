// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What depends on the CPU architecture. Each architecture is a folder that offers the items below; nothing outside
//! of it asks which one it is.
//!
//! | question | items |
//! |---|---|
//! | Where are the fixed things of the machine? | [`layout`], [`low`] |
//! | What does a VM have before memory and CPUs? | [`equip`], [`Controllers`], [`CpuFeatures`] |
//! | Which wired interrupts are there, and which GSIs are for messages? | [`irq`] |
//! | Which devices does every machine have? | [`connect`], [`serial_interrupt`] |
//! | Which kernel files can be booted, and which words keep them from it? | [`open_kernel`], [`Protocol`], [`KERNELS`], [`EFI_MACHINES`], [`check_command_line`], [`UNBOOTABLE`], [`ParamsError`] |
//! | How is the machine described to a kernel? | [`Platform`], [`DescriptionError`], [`Handover`], [`Start`] |
//! | What is RAM to the guest, and what does it cost in pieces? | [`memory_map`], [`MemoryMap`], [`LowMemoryUse`], [`Overhead`], [`SECTION`], [`TOO_MANY_PIECES`], [`memory_warnings`] |
//! | How do its CPUs begin? | [`Vcpus`], [`EntryError`] |

#[cfg(any(target_arch = "aarch64", test))]
#[cfg_attr(
    not(target_arch = "aarch64"),
    expect(dead_code, reason = "tested everywhere, used on aarch64")
)]
mod aarch64;
mod error;
mod overhead;
mod params;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use error::ArchError;
pub(crate) use overhead::{Overhead, SECTION};
pub(crate) use params::{ParamsError, check_command_line};

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{
    device_tree::Platform,
    devices::{connect, serial_interrupt},
    gic::Controllers,
    handover::{DeviceTreeError as DescriptionError, Handover, Start},
    irq,
    kernel_file::{EFI_MACHINES, KERNELS, Protocol, UNBOOTABLE, open_kernel},
    layout, low,
    memory_map::{
        LowMemoryUse, MemoryMap, TOO_MANY_PIECES, memory_map, warnings as memory_warnings,
    },
    vcpus::{EntryError, Vcpus},
    vm::{CpuFeatures, equip},
};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    acpi::{AcpiError as DescriptionError, Platform},
    boot::handover::{Handover, Start},
    boot::kernel_file::{EFI_MACHINES, KERNELS, Protocol, open as open_kernel},
    boot::low_memory::LowMemoryUse,
    boot::memory_map::{memory_map, warnings as memory_warnings},
    boot::unbootable::UNBOOTABLE,
    e820::{MemoryMap, TOO_MANY_PIECES},
    entry::EntryError,
    irq, layout,
    legacy::{connect, serial_interrupt},
    low,
    page_tables::NoRoomError,
    vcpus::Vcpus,
    vm::{Controllers, CpuFeatures, equip},
};
