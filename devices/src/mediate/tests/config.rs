//! Config space, mapped areas and what must fit the device.

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
    assert_eq!(info.bars[1].mappable, [0..0x10000]);
    for area in [0..0x1000, 0..0x3000] {
        let mapped = device.function.map(0, area, Gpa(0xfe00_0000));
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
fn config_space_that_only_the_device_knows_is_not_written() {
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
fn no_way_leads_to_the_msix_table() {
    let msix = [1, 0, 1, 0x80, 0, 0, 1, 0xc0, 0, 0];
    let text = PROFILE.to_owned()
        + "[[alias]]\nbar = 1\noffset = 0x100\nlength = 0x40\nto_bar = 1\nto_offset = 0x8000\n";
    let mut device = Device::with(&text, image().capability(0x40, 0x11, &msix));
    for offset in [0x8000, 0x8018, 0x100, 0x118] {
        let bar = Region::Bar(1);
        device.function.region_write(bar, offset, &[1; 8]).unwrap();
        let mut data = [0; 8];
        device.function.region_read(bar, offset, &mut data).unwrap();
        assert_eq!(data, [0xff; 8]);
    }
    assert_eq!(device.witness.take_all_calls(), []);
    device
        .function
        .region_write(Region::Bar(1), 0x8020, &[1; 8])
        .unwrap();
    assert_eq!(device.stores().len(), 1);
}

#[test]
fn a_profile_has_to_fit_its_device() {
    let mut other = image();
    other.config[2] = 0xce;
    let error = function(other).unwrap_err().to_string();
    assert_eq!(error, "test: the profile \"test\" is not for 1234:abce");
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
