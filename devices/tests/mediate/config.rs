// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Config space, mapped areas and what must fit the device.

use devices::mediate::SetupError;

use super::*;

fn function(image: DeviceImage) -> Result<MediatedFunction<SimulatedHost>, SetupError> {
    let options = Options {
        translate: Box::new(translate),
        on_stop: Box::new(|_| {}),
    };
    let (host, _) = SimulatedHost::new(image, None);
    MediatedFunction::new(host, Profile::parse("test", PROFILE).unwrap(), options)
}

#[test]
fn the_registers_pages_are_not_mappable() {
    let mut device = Device::with(PROFILE, image().mappable(0, &[0..0x3000, 0x8000..0x10000]));
    let info = device.function.info();
    assert_eq!(info.bars[0].mappable, [0x1000..0x3000, 0x8000..0x10000]);
    // A BAR that the profile does not mention.
    assert_eq!(info.bars[1].mappable, []);
    for (bar, area) in [(0, 0..0x1000), (0, 0..0x3000), (1, 0x1000..0x2000)] {
        let mapped = device.function.map(bar, area, Gpa(0xfe00_0000));
        let text = mapped.unwrap_err().to_string();
        assert!(text.contains("holds mediated registers"), "{text}");
    }
    assert_eq!(device.witness.mapped(), []);
    device
        .function
        .map(0, 0x1000..0x3000, Gpa(0xfe00_1000))
        .unwrap();
    device.function.unmap(0, 0x1000..0x3000).unwrap();
    assert_eq!(device.witness.violations(), Vec::<String>::new());
}

#[test]
fn config_space_that_only_the_device_defines_is_not_written() {
    let image = image()
        .capability(0x40, 0x01, &[0; 6])
        .capability(0x50, 0x10, &[0; 0x3a])
        .capability(0x90, 0x09, &[0x10; 14])
        .capability(0xa0, 0x03, &[0; 6]);
    let mut device = Device::with(PROFILE, image);
    for (offset, written) in [
        (0x04, true),
        (0x0c, true),
        (0x44, true),
        (0x46, false),
        (0x58, true),
        (0x5a, false),
        (0x78, false),
        (0x92, false),
        (0xa2, false),
        (0xfe, false),
    ] {
        device.function.config_write(offset, &[0, 0]).unwrap();
        assert_eq!(
            device.witness.take_calls().len(),
            usize::from(written),
            "{offset:#x}"
        );
    }
    device.function.config_write(0x3e, &[0; 4]).unwrap();
    device.function.config_write(0x44, &[0; 4]).unwrap();
    device.function.config_write(0xfffe, &[0; 2]).unwrap();
    device.function.config_write(0x100, &[0; 2]).unwrap();
    assert_eq!(device.witness.take_calls(), []);
    assert_eq!(device.witness.violations(), Vec::<String>::new());
}

#[test]
fn errors_are_reported_as_the_host_decides_and_shown_as_the_guest_wrote() {
    // The host has reporting of fatal and non-fatal errors on.
    let mut express = [0; 0x3a];
    express[6] = 0x06;
    let mut device = Device::with(PROFILE, image().capability(0x50, 0x10, &express));
    let read = |device: &mut Device| {
        let mut dword = [0; 4];
        device.function.config_read(0x58, &mut dword).unwrap();
        dword[0]
    };
    assert_eq!(read(&mut device), 0x06);
    for (guest, offset, data, stored) in [
        (0x06, 0x04, vec![0x46, 0x05], vec![0x46, 0x04]),
        (0x06, 0x05, vec![0x01], vec![0x00]),
        (0x39, 0x58, vec![0x39, 0x50], vec![0x36, 0x50]),
        (0x3f, 0x58, vec![0x3f], vec![0x36]),
        (0x3f, 0x59, vec![0x20], vec![0x20]),
        (0x20, 0x58, vec![0x20, 0x20], vec![0x26, 0x20]),
    ] {
        drop(device.witness.take_all_calls());
        device.function.config_write(offset, &data).unwrap();
        let calls = device.witness.take_all_calls();
        let data = stored;
        assert_eq!(calls, [Call::ConfigWrite { offset, data }]);
        assert_eq!(read(&mut device), guest, "{offset:#x}");
    }
    device.function.reset().unwrap();
    assert_eq!(read(&mut device) & 0x0f, 0x06);
    assert_eq!(device.witness.violations(), Vec::<String>::new());
}

/// BAR 1 has a table of two entries at 0x8000, and pending bits at 0xc000.
const MSIX: [u8; 10] = [1, 0, 1, 0x80, 0, 0, 1, 0xc0, 0, 0];
const ALIAS: &str =
    "[[alias]]\nbar = 1\noffset = 0x100\nlength = 0x40\nto_bar = 1\nto_offset = 0x8000\n";
const OPEN: (&str, &str) = ("refusal =", "open_bars = [1]\nrefusal =");

#[test]
fn no_way_leads_to_the_msix_table() {
    let text = profile(&[OPEN]) + ALIAS;
    let mut device = Device::with(&text, image().capability(0x40, 0x11, &MSIX));
    for offset in [0x8000, 0x8018, 0x100, 0x118] {
        device.reaches_nothing(1, offset);
    }
    device
        .function
        .region_write(Region::Bar(1), 0x8020, &[1; 8])
        .unwrap();
    assert_eq!(device.stores().len(), 1);
}

#[test]
fn what_may_be_the_msix_table_again_is_closed() {
    // The profile mentions the table's BAR, but the table can be in it a second time.
    for text in [PROFILE.to_owned() + ALIAS, PROFILE.to_owned()] {
        let mut device = Device::with(&text, image().capability(0x40, 0x11, &MSIX));
        assert_eq!(device.function.info().bars[1].mappable, []);
        for offset in [0, 0x100, 0x8000, 0x8020, 0x9000, 0xfff8] {
            device.reaches_nothing(1, offset);
        }
        assert_eq!(device.counts().ignored, 12);
    }
    // Registers of the profile are reached there too.
    let (mut image, mut msix) = (image(), MSIX);
    (msix[2], image.config[4]) = (0, 2);
    let mut device = Device::with(PROFILE, image.capability(0x40, 0x11, &msix));
    device.program(0x10_0000, 0x8000, 4, 1);
    assert_eq!(device.counts().started, 1);
    drop(device.witness.take_all_calls());
    device.reaches_nothing(0, 0x28);
    device.reaches_nothing(0, 0x8020);
    device.write64(0x8, 0);
    assert_eq!(device.stores(), []);
}

#[test]
fn a_bar_that_the_profile_does_not_mention_is_closed() {
    let mut device = Device::new(PROFILE);
    device.reaches_nothing(1, 0);
    device.reaches_nothing(1, 0x10);
    assert_eq!(device.counts().ignored, 4);
    let mut device = Device::new(&profile(&[OPEN]));
    let bar = Region::Bar(1);
    device.function.region_write(bar, 0x10, &[1; 8]).unwrap();
    assert_eq!(device.stores(), [(0x10, vec![1; 8])]);
    let mut data = [0; 8];
    device.function.region_read(bar, 0x10, &mut data).unwrap();
    assert_eq!(data, [1; 8]);
    let info = Device::with(&profile(&[OPEN]), image().mappable(1, &[0..0x10000]));
    assert_eq!(info.function.info().bars[1].mappable, [0..0x10000]);
}

impl Device {
    /// A load of all-ones and a store without effect.
    fn reaches_nothing(&mut self, bar: u8, offset: u64) {
        let region = Region::Bar(bar);
        self.function.region_write(region, offset, &[1; 8]).unwrap();
        let mut data = [0; 8];
        self.function
            .region_read(region, offset, &mut data)
            .unwrap();
        assert_eq!(data, [0xff; 8], "BAR {bar} at {offset:#x}");
        assert_eq!(self.witness.take_all_calls(), []);
    }
}

#[test]
fn a_profile_has_to_fit_its_device() {
    let mut other = image();
    other.config[2] = 0xce;
    let error = function(other).unwrap_err().to_string();
    assert_eq!(
        error,
        "test: the profile \"test\" is not for this device, 1234:abce"
    );
    let mut small = image();
    small.info.bars[0].size = 0x20;
    let error = function(small).unwrap_err().to_string();
    assert!(
        error.contains("register \"length\" of the profile \"test\" ends at 0x24"),
        "{error}"
    );
    let mut none = image();
    none.info.bars[0] = RegionInfo::default();
    assert!(matches!(
        function(none),
        Err(SetupError::Outside { size: 0, .. })
    ));
    let (host, witness) = SimulatedHost::new(image(), None);
    witness.inject(|_| true);
    let options = Options {
        translate: Box::new(translate),
        on_stop: Box::new(|_| {}),
    };
    let made = MediatedFunction::new(host, Profile::parse("test", PROFILE).unwrap(), options);
    assert!(matches!(made, Err(SetupError::Config { offset: 0, .. })));
}

#[test]
fn a_capability_list_that_loops_ends() {
    let mut image = image().capability(0x40, 0x01, &[0; 6]);
    image.config[0x41] = 0x40;
    assert!(function(image).is_ok());
}
