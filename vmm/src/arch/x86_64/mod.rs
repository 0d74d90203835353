// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! x86-64: a PC without its legacy, described by ACPI.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod e820;
pub mod entry;
pub mod error;
pub mod host;
pub mod irq;
pub mod layout;
pub mod legacy;
pub mod low;
pub mod page_tables;
pub mod ports;
pub mod reset_vector;
pub mod vcpus;
pub mod vm;
