// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DSDT: the devices that a guest cannot find by itself.

use std::ops::Range;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Method,
    Name, Notify, ONE, Package, PackageBuilder, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use address::Gpa;
use devices::{pci, power, serial};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};

/// Revision with 64-bit integers.
const REVISION: u8 = 2;
/// Bytes in the header of a table.
const HEADER: u32 = 36;

/// A table made of the bytes of others.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// The DSDT of `platform`.
pub(super) fn table(platform: &Platform) -> Vec<u8> {
    let mut body = Vec::new();
    let mut devices = vec![serial_port(), power_button(), events(platform)];
    if let Some(bus) = &platform.bus {
        devices.extend([root_bridge(platform, &bus.windows), motherboard(&bus.ecam)]);
    }
    let devices = Raw(devices.concat());
    body.extend(Scope::new("\\_SB_".into(), vec![&devices]).to_vec());
    let sleep_type = power::S5_SLEEP_TYPE;
    body.extend(Name::new("_S5_".into(), &Package::new(vec![&sleep_type])).to_vec());

    let mut dsdt = Sdt::new(
        *b"DSDT",
        HEADER,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    dsdt.append_slice(&body);
    dsdt.update_checksum();
    dsdt.as_slice().to_vec()
}

fn root_bridge(platform: &Platform, windows: &[Range<Gpa>]) -> Vec<u8> {
    let config = IO::new(pci::CONFIG_PORT, pci::CONFIG_PORT, 1, config_ports());
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let ports = AddressSpace::new_io(platform.ports.start, platform.ports.end - 1, None);
    let windows: Vec<AddressSpace<u64>> = windows.iter().map(window).collect();
    let mut resources: Vec<&dyn Aml> = vec![&bus, &config, &ports];
    resources.extend(windows.iter().map(|window| window as &dyn Aml));

    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            &Name::new("_PRT".into(), &routing(platform)),
        ],
    )
    .to_vec()
}

fn window(range: &Range<Gpa>) -> AddressSpace<u64> {
    AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        range.start.0,
        range.end.0 - 1,
        None,
    )
}

/// Which interrupt each pin of each slot raises (ACPI 6.5, section 6.2.13).
fn routing(platform: &Platform) -> PackageBuilder {
    const ANY_FUNCTION: u32 = 0xffff;
    let mut routes = PackageBuilder::new();
    for device in 1..32_u8 {
        for pin in pci::Pin::ALL {
            let address = u32::from(device) << 16 | ANY_FUNCTION;
            let gsi = platform.intx[usize::from(pin.line(device))];
            routes.add_element(&Package::new(vec![&address, &pin.index(), &ZERO, &gsi]));
        }
    }
    routes
}

/// What drivers must leave alone: ECAM, which is in no window.
fn motherboard(ecam: &Range<Gpa>) -> Vec<u8> {
    // Below 4 GiB and 1 MiB long by construction.
    let start = u32::try_from(ecam.start.0).unwrap_or(u32::MAX);
    let length = u32::try_from(ecam.end - ecam.start).unwrap_or(0);
    Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(true, start, length)]),
            ),
        ],
    )
    .to_vec()
}

fn serial_port() -> Vec<u8> {
    let ports = u8::try_from(serial::PORTS).unwrap_or(u8::MAX);
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Interrupt::new(true, true, false, false, serial::IRQ),
                    &IO::new(serial::BASE_PORT, serial::BASE_PORT, 1, ports),
                ]),
            ),
        ],
    )
    .to_vec()
}

/// The power button as a device, since the machine has no fixed registers for one (ACPI 6.5,
/// section 4.8.2.2.1.2).
fn power_button() -> Vec<u8> {
    Device::new(
        "PWRB".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
    )
    .to_vec()
}

/// The generic event device (ACPI 6.5, section 5.6.9), whose one interrupt reports that the power
/// button was pressed.
fn events(platform: &Platform) -> Vec<u8> {
    const PRESSED: u8 = 0x80;
    let interrupt = Interrupt::new(true, true, false, false, platform.power_button);
    Device::new(
        "GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt])),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &PRESSED)],
            ),
        ],
    )
    .to_vec()
}

fn config_ports() -> u8 {
    u8::try_from(pci::CONFIG_PORTS).unwrap_or(u8::MAX)
}

trait ToVec {
    fn to_vec(&self) -> Vec<u8>;
}

impl<T: Aml> ToVec for T {
    fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        bytes
    }
}
