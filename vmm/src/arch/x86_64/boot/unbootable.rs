// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What keeps Linux from booting on this machine.

/// Words with which Linux does not boot here, each with a value or with any, and why.
pub const UNBOOTABLE: &[(&str, Option<&str>, &str)] = &[
    ("acpi", Some("off"), NO_ACPI),
    ("noapic", None, NO_IO_APIC),
    // Both turn the I/O APIC off, too (arch/x86/kernel/smpboot.c, `arch_disable_smp_support`).
    ("nosmp", None, NO_IO_APIC),
    ("maxcpus", Some("0"), NO_IO_APIC),
    ("nolapic", None, NO_LOCAL_APIC),
    ("disableapic", None, NO_LOCAL_APIC),
];
const NO_ACPI: &str =
    "only ACPI tells it of its interrupt controllers, its CPUs and its power switch";
const NO_IO_APIC: &str = "the interrupts of its devices come by the I/O APIC only";
const NO_LOCAL_APIC: &str = "all of its interrupts come by the local APIC";
