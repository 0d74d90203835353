// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every fixed guest-physical address and interrupt of the machine.
//!
//! In the identity layout RAM and BARs are where the host has them, so what the machine has besides must be where no
//! host has either. No address below 4 GiB is such a one: boards have RAM from 0 to 0xf800_0000 or from 1 GiB to
//! 4 GiB. All of it is in one block at 448 GiB, which the 40 bits of a guest-physical address that every CPU with
//! virtualisation offers can reach.
//!
//! The ITS is above 4 GiB by that: a function whose MSI capability has 32 bits for the address falls back to INTx.

use std::ops::Range;

use address::{Gpa, Hpa};
use devices::{pci, power, serial};
use iommufd_backend::IoMem;

use crate::config::MOST_CPUS;

/// Where all of it begins.
const BASE: Gpa = Gpa(0x70_0000_0000);
/// Devices are so far apart, so that a guest whose pages have 64 KiB can map each by itself.
const STEP: u64 = 0x1_0000;

/// Bytes of the registers of a CPU's redistributor (Arm GICv3 specification, section 12.10).
const REDISTRIBUTOR: u64 = 0x2_0000;

/// The distributor of the GIC.
pub const GIC_DISTRIBUTOR: Range<Gpa> = block(0, STEP);
/// The CPU interface of a GICv2 (Arm GICv2 specification, table 4-2).
pub const GIC_CPU_INTERFACE: Range<Gpa> = block(0x2_0000, 0x2000);
/// What messages are written to where there is no ITS.
pub const MESSAGE_FRAME: Range<Gpa> = block(0x3_0000, 0x1000);
/// The ITS, and behind its registers those that messages are written to.
pub const ITS: Range<Gpa> = block(0x8_0000, 2 * STEP);
/// The redistributors, one for each CPU that a guest can have.
pub const GIC_REDISTRIBUTORS: Range<Gpa> = block(0x10_0000, MOST_CPUS as u64 * REDISTRIBUTOR);
/// The serial port.
pub const UART: Range<Gpa> = block(0x60_0000, serial::PORTS as u64);
/// The clock.
pub const RTC: Range<Gpa> = block(0x61_0000, 0x1000);
/// What takes a guest's status, and powers off like PSCI.
pub const POWER: Range<Gpa> = block(0x62_0000, power::PORTS as u64);
/// I/O ports of the bus, each at its number from here.
pub const PORTS: Range<Gpa> = block(0x70_0000, STEP);
/// PCI config space.
const CONFIG_SPACE: Range<Gpa> = block(0x80_0000, pci::ECAM_SIZE);

const fn block(offset: u64, len: u64) -> Range<Gpa> {
    Gpa(BASE.0 + offset)..Gpa(BASE.0 + offset + len)
}

/// RAM begins here where its addresses are not the host's: at 1 GiB, as on many boards.
pub const CONVENTIONAL_RAM: Gpa = Gpa(1 << 30);

/// I/O ports that BARs may have.
pub const BAR_PORTS: Range<u16> = 0x1000..0xfff0;
/// The serial port's interrupt. GSIs up to [`SPIS`] are shared peripheral interrupts (SPIs), by number.
pub const UART_GSI: u32 = 0;
/// The interrupt that a press of the power button raises.
pub const POWER_BUTTON_GSI: u32 = 1;
/// GSIs of the four INTx lines.
pub const INTX_GSIS: [u32; 4] = [2, 3, 4, 5];
/// Wired SPIs that the GIC has: the fewest that KVM takes (arch/arm64/kvm/vgic/vgic-kvm-device.c,
/// KVM_DEV_ARM_VGIC_GRP_NR_IRQS).
pub const SPIS: u32 = 32;
/// SPIs behind those that messages become where there is no ITS: 512 interrupts in all.
pub const MESSAGE_SPIS: u32 = 448;
/// Interrupts of a CPU's own, which are numbered before the shared ones.
pub const PRIVATE_INTERRUPTS: u32 = 32;

/// Ranges that are never RAM from the host nor a window for BARs, each with its name; config space is not among them.
pub const FIXED: [(&str, Range<Gpa>); 9] = [
    ("the GIC's distributor", GIC_DISTRIBUTOR),
    ("the GIC's CPU interface", GIC_CPU_INTERFACE),
    ("the GIC's message frame", MESSAGE_FRAME),
    ("the GIC's ITS", ITS),
    ("the GIC's redistributors", GIC_REDISTRIBUTORS),
    ("the serial port", UART),
    ("the clock", RTC),
    ("the power registers", POWER),
    ("the I/O ports", PORTS),
];

/// Where what the kernel is given at its entry may be, each with its name: nothing is at a fixed place, as the device
/// tree is behind the kernel.
pub const BOOT_DATA: [(&str, Range<Gpa>); 0] = [];
/// Bytes of the longest command line: the kernel's own limit is less than what the device tree could hold
/// (arch/arm64/include/uapi/asm/setup.h, `COMMAND_LINE_SIZE`, with its end mark).
pub const COMMAND_LINE_ROOM: usize = 2047;

/// Where config space is, wherever the host has its own.
#[must_use]
pub fn config_space(_: &IoMem, _: &[Range<Hpa>]) -> Option<Range<Gpa>> {
    Some(CONFIG_SPACE)
}

/// Whether the monitor sees what a guest stores to RAM that it maps as device memory. Not without
/// FEAT_S2FWB: such stores bypass the caches.
pub const DEVICE_STORES_ARE_CACHED: bool = false;

/// Whether guests have a device tree, by which their kernels are told where RAM is for devices.
pub const HAS_DEVICE_TREE: bool = true;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_all_of_it_is_within_39_bits() {
        let mut all: Vec<_> = FIXED.iter().map(|(_, range)| range.clone()).collect();
        all.push(CONFIG_SPACE);
        all.sort_by_key(|range| range.start);
        for pair in all.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:x?}");
            assert!(pair[1].start.is_aligned(STEP));
        }
        assert!(all.last().unwrap().end.0 <= 1 << 39);
        assert!(CONFIG_SPACE.start.is_aligned(pci::ECAM_SIZE));
    }

    #[test]
    fn each_interrupt_is_raised_by_one_device() {
        let mut all = vec![UART_GSI, POWER_BUTTON_GSI];
        all.extend(INTX_GSIS);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert!(all.iter().all(|gsi| *gsi < SPIS));
    }
}
