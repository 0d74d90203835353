// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any text as a profile, and any access to what it describes.

use address::{Gpa, Hpa};
use devices::mediate::{MediatedFunction, Options, Profile, Run};
use devices::pci::{BarKind, Region};
use devices::vfio_pci::HostFunction;

use crate::input::Input;
use crate::{DeviceImage, SimulatedHost};

/// Parses the text in front of the first zero byte. If it is a profile, the bytes behind it are
/// accesses to a device that has BARs of 64 KiB. Returns whether it was one that fits the device.
///
/// # Panics
///
/// If an access fails or has a shape that no bus has.
pub fn run(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Ok(profile) = Profile::parse("fuzz", &text) else {
        return false;
    };
    let mut image = DeviceImage::new("fuzz", 256);
    image.config[..4].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11]);
    image.config[4] = 2;
    for bar in 0..6 {
        let kind = BarKind::Memory32 {
            prefetchable: false,
        };
        image = image.bar(bar, kind, 0x10000, 0xfe00_0000 + 0x10000 * u64::from(bar));
    }
    let options = Options {
        translate: Box::new(|gpa: Gpa, length| {
            let hpa = Hpa(gpa.0.checked_add(0x5000)?);
            Some(Run { hpa, len: length })
        }),
        on_stop: Box::new(|_| {}),
    };
    let (host, witness) = SimulatedHost::new(image, None);
    let Ok(mut function) = MediatedFunction::new(host, profile, options) else {
        return false;
    };
    let mut input = Input(parts.next().unwrap_or_default());
    while !input.0.is_empty() {
        access(&mut function, &mut input);
    }
    assert_eq!(witness.violations(), Vec::<String>::new());
    true
}

fn access(function: &mut MediatedFunction<SimulatedHost>, input: &mut Input<'_>) {
    let choice = input.byte();
    let region = Region::Bar(choice % 6);
    let offset = if choice & 0x40 == 0 {
        u64::from(input.byte())
    } else {
        input.value()
    };
    let length = usize::from(input.byte() % 9);
    let value = input.value().to_le_bytes();
    let mut data = value[..length.min(8)].to_vec();
    let done = if choice & 0x80 == 0 {
        function.region_write(region, offset, &data)
    } else {
        function.region_read(region, offset, &mut data)
    };
    if choice == 0x3f {
        assert!(function.reset().is_ok());
    }
    assert!(done.is_ok(), "{done:?}");
}
