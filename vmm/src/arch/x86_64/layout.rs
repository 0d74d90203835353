// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every fixed guest-physical address, port and GSI of the machine, except for low memory
//! ([`low`]).

use std::ops::Range;

use address::{Gpa, Hpa};
use devices::pci;
use host::{CONFIG_WINDOW_LIMIT, CONFIG_WINDOW_SIZE, ConfigWindow};
use iommufd_backend::IoMem;

use super::low;

/// Physical address of every local APIC.
pub const LOCAL_APIC: Range<Gpa> = Gpa(0xfee0_0000)..Gpa(0xfee0_1000);
/// Physical address of the I/O APIC that KVM emulates.
pub const IO_APIC: Range<Gpa> = Gpa(0xfec0_0000)..Gpa(0xfec0_1000);

/// Where KVM may put what Intel CPUs need to run real mode: below 4 GiB in the ROM area, which is
/// memory on no PC. Four pages: the identity map and the task state.
pub const IDENTITY_MAP: Gpa = Gpa(0xfffb_c000);
/// The task state, three pages.
pub const TASK_STATE: Gpa = Gpa(0xfffb_d000);

/// RAM begins here where its addresses are not the host's: above low memory.
pub const CONVENTIONAL_RAM: Gpa = Gpa(0);

/// Bytes of the longest command line that fits its place in low memory, without its end mark.
pub const COMMAND_LINE_ROOM: usize = 0xffff;
const _: () =
    assert!(low::COMMAND_LINE.end.0 - low::COMMAND_LINE.start.0 == COMMAND_LINE_ROOM as u64 + 1);

/// Where `/proc/iomem` and the BARs of the devices to pass through leave a place for config space.
#[must_use]
pub fn config_space(host: &IoMem, bars: &[Range<Hpa>]) -> Option<Range<Gpa>> {
    let found = ConfigWindow::find(host, bars)?.range;
    Some(Gpa(found.start.0)..Gpa(found.end.0))
}

// It has the size that the guest's bus answers, below the guest's I/O APIC.
const _: () = assert!(CONFIG_WINDOW_SIZE == pci::ECAM_SIZE);
const _: () = assert!(CONFIG_WINDOW_LIMIT.0 == IO_APIC.start.0);

/// Ports of the power device.
pub const POWER_PORT: u16 = 0x600;
/// I/O ports that BARs may have.
pub const BAR_PORTS: Range<u16> = 0x1000..0xfff0;
/// GSIs of the four INTx lines: pins of the I/O APIC above those of ISA interrupts.
pub const INTX_GSIS: [u32; 4] = [16, 17, 18, 19];
/// The interrupt that a press of the power button raises, by which the guest's generic event device hears of it: a
/// pin of the I/O APIC above those of PCI's INTx lines.
pub const POWER_BUTTON_GSI: u32 = 20;

/// Ranges at the start and the end of the address space that are never RAM from the host nor a window for BARs, each
/// with its name; config space, whose place follows from the host, is not among them.
pub const FIXED: [(&str, Range<Gpa>); 4] = [
    ("low memory", Gpa(0)..Gpa(low::SIZE)),
    ("the I/O APIC", IO_APIC),
    ("the local APICs", LOCAL_APIC),
    (
        "KVM's own pages",
        IDENTITY_MAP..Gpa(TASK_STATE.0 + 3 * 4096),
    ),
];

/// Where what the kernel is given at its entry may be, each with its name.
pub const BOOT_DATA: [(&str, Range<Gpa>); 5] = [
    ("zero page", low::ZERO_PAGE..low::PAGE_TABLES.start),
    ("page tables", low::PAGE_TABLES),
    ("command line", low::COMMAND_LINE),
    ("setup_data", low::SETUP_DATA),
    ("ACPI tables", low::ACPI),
];

/// Whether the monitor sees what a guest stores to RAM that it maps as device memory: caches stay
/// coherent with stores of any memory type.
pub const DEVICE_STORES_ARE_CACHED: bool = true;

/// Whether guests have a device tree, by which their kernels are told where RAM is for devices.
pub const HAS_DEVICE_TREE: bool = false;
