// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ACPI tables: which CPUs, buses, windows and interrupts the guest has.
//!
//! The machine is a hardware-reduced one (ACPI 6.5, section 4.1): no legacy timers but a PIT, which
//! is to measure other clocks with and raises no interrupt, no PIC, no fixed registers but those for
//! sleep and reset. Its power button is a device.

mod dsdt;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use address::Gpa;
use devices::power;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::arch::x86_64::layout::{self, IO_APIC, LOCAL_APIC};
use crate::arch::x86_64::low;
use crate::bus::address_map::AddressMap;

const OEM_ID: [u8; 6] = *b"PINVIS";
const OEM_TABLE_ID: [u8; 8] = *b"PINVISOR";
const OEM_REVISION: u32 = 1;

/// Where tables begin; the root pointer precedes them.
const TABLES: u64 = 64;
/// The ACPI specification aligns nothing but the root pointer and the FACS; readers like it.
const ALIGNMENT: u64 = 16;

/// FADT boot flags: no VGA (bit 2), no CMOS clock (bit 5).
const NO_VGA_NO_RTC: u16 = 1 << 2 | 1 << 5;

/// What the tables describe.
#[derive(Clone, Debug)]
pub struct Platform {
    /// CPUs, numbered from 0, which is also their APIC id.
    pub cpus: u8,
    /// Where config space of bus 0 is, and which addresses BARs may have. `None` if there is no PCI bus.
    pub bus: Option<AddressMap>,
    /// I/O ports that BARs may have.
    pub ports: Range<u16>,
    /// First of the ports of the power device.
    pub power: u16,
    /// Interrupt, edge-triggered, for presses of the power button.
    pub power_button: u32,
    /// Interrupts that the four INTx lines raise.
    pub intx: [u32; 4],
}

impl Platform {
    /// A machine with this number of CPUs, and with a PCI bus as in `bus` if there is one.
    #[must_use]
    pub fn new(cpus: u8, bus: Option<AddressMap>) -> Self {
        Self {
            cpus,
            bus,
            ports: layout::BAR_PORTS,
            power: layout::POWER_PORT,
            power_button: layout::POWER_BUTTON_GSI,
            intx: layout::INTX_GSIS,
        }
    }
}

/// Why the guest cannot have its tables.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They are too long for their place.
    #[error("The guest's ACPI tables need {need} bytes, but only {room} bytes are available")]
    TooLong {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        room: u64,
    },
    /// Memory did not take them.
    #[error("Cannot write ACPI tables to guest memory")]
    Write(#[from] GuestMemoryError),
}

impl Platform {
    /// Writes the tables to [`low::ACPI`] and returns the address of the root pointer.
    ///
    /// # Errors
    /// [`AcpiError`]
    pub fn write(&self, memory: &GuestMemoryMmap) -> Result<Gpa, AcpiError> {
        let image = self.image(low::ACPI.start);
        let room = low::ACPI.end - low::ACPI.start;
        if image.len() as u64 > room {
            return Err(AcpiError::TooLong {
                need: image.len() as u64,
                room,
            });
        }
        memory.write_slice(&image, GuestAddress(low::ACPI.start.0))?;
        Ok(low::ACPI.start)
    }

    /// Root pointer and tables as they are laid out from `base`.
    fn image(&self, base: Gpa) -> Vec<u8> {
        let mut tables = Tables {
            base: base + TABLES,
            bytes: Vec::new(),
        };
        let dsdt = tables.add(dsdt::table(self));
        let mut root = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        let mcfg = self.bus.as_ref().map(mcfg);
        for table in [self.fadt(dsdt), self.madt()].into_iter().chain(mcfg) {
            root.add_entry(tables.add(table).0);
        }
        let root = tables.add(bytes(&root));
        let mut image = bytes(&Rsdp::new(OEM_ID, root.0));
        image.resize(usize::try_from(TABLES).unwrap_or(0), 0);
        image.extend(tables.bytes);
        image
    }

    fn fadt(&self, dsdt: Gpa) -> Vec<u8> {
        let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
            .dsdt_64(dsdt.0)
            .flag(Flags::HwReducedAcpi)
            .flag(Flags::ResetRegSup)
            .flag(Flags::PwrButton)
            .flag(Flags::SlpButton);
        fadt.iapc_boot_arch = NO_VGA_NO_RTC.into();
        fadt.reset_reg = port(self.power + power::RESET);
        fadt.reset_value = power::RESET_VALUE;
        fadt.sleep_control_reg = port(self.power + power::SLEEP_CONTROL);
        fadt.sleep_status_reg = port(self.power + power::SLEEP_STATUS);
        bytes(&fadt.finalize())
    }

    fn madt(&self) -> Vec<u8> {
        let address = |range: Range<Gpa>| u32::try_from(range.start.0).unwrap_or(u32::MAX);
        let mut madt = MADT::new(
            OEM_ID,
            OEM_TABLE_ID,
            OEM_REVISION,
            LocalInterruptController::Address(address(LOCAL_APIC)),
        );
        for cpu in 0..self.cpus {
            madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
        }
        madt.add_structure(IoApic::new(0, address(IO_APIC), 0));
        bytes(&madt)
    }
}

fn mcfg(bus: &AddressMap) -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(bus.ecam.start.0, 0, 0, 0);
    bytes(&mcfg)
}

/// Tables one behind the other.
struct Tables {
    base: Gpa,
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends `table` and returns its address.
    fn add(&mut self, table: Vec<u8>) -> Gpa {
        let at = (self.bytes.len() as u64).next_multiple_of(ALIGNMENT);
        self.bytes.resize(usize::try_from(at).unwrap_or(0), 0);
        self.bytes.extend(table);
        self.base + at
    }
}

/// One byte-wide I/O port as a generic address.
fn port(number: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        number.into(),
    )
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xe_0000;

    fn platform() -> Platform {
        Platform {
            cpus: 2,
            bus: Some(AddressMap {
                ecam: Gpa(0xb000_0000)..Gpa(0xb010_0000),
                windows: vec![
                    Gpa(0xc000_0000)..Gpa(0xfec0_0000),
                    Gpa(0xc0_0000_0000)..Gpa(0x100_0000_0000),
                ],
                ..AddressMap::conventional()
            }),
            ports: 0x1000..0xffff,
            power: 0x600,
            power_button: 20,
            intx: [16, 17, 18, 19],
        }
    }

    fn long(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at an address, with the length in its header.
    fn table(image: &[u8], address: u64) -> &[u8] {
        let at = usize::try_from(address - BASE).unwrap();
        let length = u32::from_le_bytes(image[at + 4..at + 8].try_into().unwrap());
        &image[at..at + length as usize]
    }

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        let image = platform().image(Gpa(BASE));
        assert_eq!(&image[..8], b"RSD PTR ");
        assert!(sums_to_zero(&image[..20]) && sums_to_zero(&image[..36]));
        let root = table(&image, long(&image, 24));
        assert!(sums_to_zero(root));
        let mut found = Vec::new();
        for entry in root[36..].chunks(8) {
            let table = table(&image, long(entry, 0));
            assert!(sums_to_zero(table));
            found.push(&table[..4]);
            if &table[..4] == b"FACP" {
                let dsdt = self::table(&image, long(table, 140));
                assert!(sums_to_zero(dsdt));
                assert_eq!(&dsdt[..4], b"DSDT");
                // Hardware-reduced, reset register, and where they are.
                assert_eq!(
                    table[112..116],
                    (1_u32 << 20 | 1 << 10 | 0x30).to_le_bytes()
                );
                assert_eq!(long(table, 120), 0x602);
                assert_eq!(long(table, 248), 0x600);
            }
        }
        assert_eq!(found, [b"FACP", b"APIC", b"MCFG"]);
    }

    #[test]
    fn the_interrupt_of_the_event_device_presses_the_power_button() {
        let dsdt = dsdt::table(&platform());
        let has = |code: &[u8]| dsdt.windows(code.len()).any(|window| window == code);
        // Extended interrupt descriptor: consumer, edge-triggered, active high, one, GSI 20.
        assert!(has(&[0x89, 6, 0, 0b11, 1, 20, 0, 0, 0]));
        assert!(has(b"\x14\x13_EVT\x09\x86\\\x2e_SB_PWRB\x0a\x80"));
        assert!(has(b"PWRB\x08_HID\x0c\x41\xd0\x0c\x0c"));
    }

    #[test]
    fn a_machine_without_a_bus_describes_none() {
        let mut platform = platform();
        let has = |platform: &Platform, word: &[u8; 4]| {
            let image = platform.image(Gpa(BASE));
            image.windows(4).any(|window| window == word)
        };
        // Also what keeps drivers off config space is not needed.
        for word in [b"MCFG", b"PCI0", b"MBRD"] {
            platform.bus = Some(AddressMap::conventional());
            assert!(has(&platform, word), "{word:?}");
            platform.bus = None;
            assert!(!has(&platform, word), "{word:?}");
        }
        assert!(has(&platform, b"COM1"));
    }

    #[test]
    fn the_tables_of_the_largest_machine_fit() {
        let mut large = platform();
        large.cpus = 254;
        large.bus.as_mut().unwrap().windows = vec![Gpa(0xc000_0000)..Gpa(0xd000_0000); 64];
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        assert_eq!(large.write(&memory).unwrap(), Gpa(BASE));
    }
}
