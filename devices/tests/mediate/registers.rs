// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Loads and stores: what is kept, what passes, and what the device gets at a start.

use super::*;

const FROM_MEMORY: u32 = 1;
const TO_MEMORY: u32 = 0x101;

#[test]
fn a_start_programs_the_device_with_physical_addresses() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0040, 0x8010, 0x20, FROM_MEMORY);
    let expected = [
        store64(0x10, 0x10_0040 + SHIFT),
        store64(0x18, 0x8010),
        store32(0x20, 0x20),
        store32(0x24, FROM_MEMORY),
    ];
    assert_eq!(device.stores(), expected);
    device.witness.set_register(BAR, 0x24, &[0]);
    device.program(0x8010, 0x1f_fff8, 8, TO_MEMORY);
    assert_eq!(
        device.stores()[..2],
        [store64(0x10, 0x8010), store64(0x18, 0x1f_fff8 + SHIFT)]
    );
    assert_eq!(device.counts().started, 2);
}

#[test]
fn nothing_reaches_the_device_before_the_start() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, 0x100);
    assert_eq!(device.stores(), []);
    assert_eq!(device.counts(), Statistics::default());
}

#[test]
fn registers_read_as_the_guest_wrote_them() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    // What the device has in them is not the guest's to see.
    device.witness.set_register(BAR, 0x10, &[0xee; 20]);
    assert_eq!(device.read64(0x10), 0x10_0000);
    assert_eq!(device.read64(0x18), 0x8000);
    assert_eq!(device.read32(0x20), 4);
    assert_eq!(device.read32(0x14), 0);
    assert_eq!(device.read::<1>(0x12), [0x10]);
    // The length is the monitor's, the command behind it the device's.
    device.witness.set_register(BAR, 0x24, &[1, 2, 3, 4]);
    assert_eq!(device.read64(0x20), 0x0403_0201_0000_0004);
    assert_eq!(device.read32(0x24), 0x0403_0201);
}

#[test]
fn other_registers_are_the_devices() {
    let mut device = Device::new(PROFILE);
    device.write32(0x0c, 0x1234_5678);
    device.write64(0x28, 7);
    assert_eq!(
        device.stores(),
        [store32(0x0c, 0x1234_5678), store64(0x28, 7)]
    );
    assert_eq!(device.read32(0x0c), 0x1234_5678);
}

#[test]
fn parts_of_a_register_merge() {
    let mut device = Device::new(PROFILE);
    device.write32(0x14, 0x1122_3344);
    device.write(0x10, &[0x55]);
    device.write(0x12, &[0x66, 0x77]);
    assert_eq!(device.read64(0x10), 0x1122_3344_7766_0055);
    assert_eq!(device.stores(), []);
}

#[test]
fn a_store_of_several_registers_starts_last() {
    let mut device = Device::new(PROFILE);
    device.write64(0x10, 0x10_0000);
    device.write64(0x18, 0x8000);
    device.write64(0x20, u64::from(FROM_MEMORY) << 32 | 0x40);
    let stores = device.stores();
    assert_eq!(
        stores[2..],
        [store32(0x20, 0x40), store32(0x24, FROM_MEMORY)]
    );
}

#[test]
fn a_store_beyond_the_mediated_registers_has_no_effect() {
    let text = profile(&[("offset = 0x24\nwidth = 4", "offset = 0x28\nwidth = 4")]);
    let mut device = Device::new(&text);
    device.write64(0x20, u64::MAX);
    device.write64(0x28, u64::MAX);
    assert_eq!(device.stores(), []);
    assert_eq!(device.read32(0x20), 0);
    assert_eq!(device.counts().ignored, 2);
}

#[test]
fn odd_shapes_have_no_effect() {
    let mut device = Device::new(PROFILE);
    for (offset, length) in [
        (0x11, 2),
        (0x12, 4),
        (0x0c, 8),
        (0x10, 3),
        (0x10, 0),
        (0x10, 9),
    ] {
        let mut data = vec![0x5a; length];
        device.write(offset, &data);
        device.function.region_read(BAR, offset, &mut data).unwrap();
        assert_eq!(data, vec![0xff; length], "{offset:#x}");
    }
    for offset in [0x1_0000, 0xfffc, u64::MAX - 7, u64::MAX - 3] {
        device.write64(offset, 1);
        assert_eq!(device.read64(offset), u64::MAX);
    }
    assert_eq!(device.stores(), []);
    assert_eq!(device.read64(0x10), 0);
    assert_eq!(device.counts().ignored, 20);
}

#[test]
fn registers_that_take_some_widths_ignore_others() {
    let text = profile(&[(
        "offset = 0x10\nwidth = 8",
        "offset = 0x10\nwidth = 8\naccesses = [8]",
    )]);
    let mut device = Device::new(&text);
    device.write64(0x10, 0x0102_0304_0506_0708);
    device.write32(0x10, 0);
    device.write(0x13, &[0]);
    assert_eq!(device.read64(0x10), 0x0102_0304_0506_0708);
    assert_eq!(device.read32(0x10), u32::MAX);
    assert_eq!(device.counts().ignored, 3);
}

#[test]
fn narrow_stores_replace_where_the_device_does_so() {
    let text = profile(&[(
        "offset = 0x10\nwidth = 8",
        "offset = 0x10\nwidth = 8\npartial = \"replace\"",
    )]);
    let mut device = Device::new(&text);
    device.write64(0x10, u64::MAX);
    device.write32(0x10, 5);
    assert_eq!(device.read64(0x10), 5);
    device.write32(0x14, 5);
    assert_eq!(device.read64(0x10), 5);
    assert_eq!(device.read32(0x14), u32::MAX);
    assert_eq!(device.counts().ignored, 2);
}

#[test]
fn the_device_gets_stores_as_wide_as_it_needs() {
    for (keys, expected) in [
        ("", vec![store64(0x10, 0x7010_0000)]),
        (
            "store = 4",
            vec![store32(0x10, 0x7010_0000), store32(0x14, 0)],
        ),
        (
            "high_offset = 0x40",
            vec![store32(0x10, 0x7010_0000), store32(0x40, 0)],
        ),
        (
            "high_offset = 0x40\nhigh_first = true",
            vec![store32(0x40, 0), store32(0x10, 0x7010_0000)],
        ),
    ] {
        let with = format!("offset = 0x10\nwidth = 8\n{keys}");
        let mut device = Device::new(&profile(&[("offset = 0x10\nwidth = 8", &with)]));
        device.write32(0x10, 0x10_0000);
        device.write64(0x18, 0x8000);
        device.write32(0x20, 4);
        device.write32(0x24, FROM_MEMORY);
        let stores = device.stores();
        assert_eq!(stores[..expected.len()], expected, "{keys}");
        assert_eq!(stores.len(), expected.len() + 3);
    }
}

#[test]
fn halves_apart_are_one_register() {
    let text = profile(&[(
        "offset = 0x10\nwidth = 8",
        "offset = 0x10\nwidth = 8\nhigh_offset = 0x40",
    )]);
    let mut device = Device::new(&text);
    device.write32(0x40, 1);
    device.program(0, 0x8000, 4, FROM_MEMORY);
    // 8 bytes at 0x10 are the low half and a register of the device.
    assert_eq!(device.counts().ignored, 1);
    assert_eq!(
        device.refusal(),
        Some(Reason::NotMemory { gpa: Gpa(1 << 32) })
    );
    assert_eq!(device.read32(0x40), 1);
}

#[test]
fn half_a_start_is_none() {
    let text = profile(&[(
        "start = { register = \"command\", mask = 1, value = 1 }",
        "start = { register = \"command\", mask = 0x8001, value = 0x8001 }",
    )]);
    let mut device = Device::new(&text);
    device.program(0x10_0000, 0x8000, 4, 0);
    device.write(0x25, &[0x80]);
    device.write(0x24, &[1]);
    assert_eq!(device.stores(), []);
    assert_eq!(device.counts().ignored, 2);
    device.write(0x24, &[1, 0x80]);
    assert_eq!(device.counts().started, 1);
}

#[test]
fn a_part_of_the_command_without_the_start_bit_does_not_start() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    device.witness.set_register(BAR, 0x24, &[0]);
    device.stores();
    // The start bit was set last time, but this store does not set it.
    device.write(0x25, &[1]);
    assert_eq!(device.stores(), []);
    device.write(0x24, &[1]);
    assert_eq!(
        device.refusal(),
        Some(Reason::Window { address: 0x10_0000 })
    );
}

#[test]
fn stores_that_do_not_start_pass_only_while_the_device_is_idle() {
    let text = profile(&[(
        "mask = 1, value = 1 }\nbusy",
        "mask = 1, value = 1, otherwise = \"pass\" }\nbusy",
    )]);
    let mut device = Device::new(&text);
    // Bit 6 is no field's.
    device.write32(0x24, 0x140);
    assert_eq!(device.stores(), [store32(0x24, 0x100)]);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    device.stores();
    device.write32(0x24, 0x100);
    assert_eq!(device.stores(), []);
    // Without the bytes of the start bit it would pass that bit as it was.
    device.witness.set_register(BAR, 0x24, &[0]);
    device.write(0x25, &[1]);
    assert_eq!(device.stores(), []);
}

#[test]
fn a_start_while_busy_changes_nothing() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    device.stores();
    device.program(0x10_1000, 0x8100, 8, TO_MEMORY ^ 0x100);
    assert_eq!(device.stores(), []);
    assert_eq!((device.counts().started, device.counts().busy), (1, 1));
    device.witness.set_register(BAR, 0x24, &[0]);
    device.write32(0x24, FROM_MEMORY);
    assert_eq!(device.stores()[0], store64(0x10, 0x10_1000 + SHIFT));
}

#[test]
fn a_device_that_latches_is_not_asked_whether_it_is_busy() {
    let text = profile(&[(
        "busy = { register = \"command\", mask = 1, value = 1 }",
        "latched_at_start = true",
    )]);
    let mut device = Device::new(&text);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    assert_eq!(device.counts().started, 2);
}

#[test]
fn a_host_that_fails_starts_nothing() {
    for failing in [0x10, 0x20, 0x24] {
        let mut device = Device::new(PROFILE);
        device.witness.inject(move |call| match call {
            Call::RegionWrite { offset, .. } => *offset == failing,
            _ => false,
        });
        device.program_but_start(0x10_0000, 0x8000, 4);
        let started = device.function.region_write(BAR, 0x24, &[1, 0, 0, 0]);
        assert!(started.is_err());
        assert_eq!((device.counts().started, device.counts().failed), (0, 1));
        let after = device
            .stores()
            .iter()
            .filter(|(at, _)| *at > failing)
            .count();
        assert_eq!(after, 0);
    }
    let mut device = Device::new(PROFILE);
    device
        .witness
        .inject(|call| matches!(call, Call::RegionRead { .. }));
    device.program_but_start(0x10_0000, 0x8000, 4);
    assert!(
        device
            .function
            .region_write(BAR, 0x24, &[1, 0, 0, 0])
            .is_err()
    );
    assert_eq!(device.stores(), []);
}

impl Device {
    fn program_but_start(&mut self, source: u64, destination: u64, length: u32) {
        self.write64(0x10, source);
        self.write64(0x18, destination);
        self.write32(0x20, length);
    }
}

#[test]
fn aliases_are_the_registers_that_they_show() {
    let text = PROFILE.to_owned()
        + "[[alias]]\nbar = 1\noffset = 0x100\nlength = 0x44\nto_bar = 0\nto_offset = 0\n";
    let mut device = Device::new(&text);
    let bar = Region::Bar(1);
    let mut write = |offset, data: &[u8]| device.function.region_write(bar, offset, data).unwrap();
    write(0x110, &0x10_0000_u64.to_le_bytes());
    write(0x118, &0x8000_u64.to_le_bytes());
    write(0x120, &4_u32.to_le_bytes());
    write(0x124, &1_u32.to_le_bytes());
    // Across the edge of an alias there is nothing.
    write(0x140, &[7; 8]);
    assert_eq!(device.stores().len(), 4);
    assert_eq!((device.counts().started, device.counts().ignored), (1, 1));
    assert_eq!(device.read64(0x10), 0x10_0000);
    let mut data = [0; 8];
    device.function.region_read(bar, 0x110, &mut data).unwrap();
    assert_eq!(u64::from_le_bytes(data), 0x10_0000);
    let info = device.function.info();
    assert_eq!(info.bars[1].mappable, [0x1000..0x10000]);
}

#[test]
fn ports_lead_to_the_registers_that_they_select() {
    let text = PROFILE.to_owned()
        + "[[port]]\nindex = { bar = 1, offset = 0, width = 4 }\n\
           data = { bar = 1, offset = 8, width = 8 }\nto_bar = 0\nstride = 4\n";
    let mut device = Device::new(&text);
    let bar = Region::Bar(1);
    let mut select = |index: u32, data: &[u8]| {
        let function = &mut device.function;
        function.region_write(bar, 0, &index.to_le_bytes()).unwrap();
        function.region_write(bar, 8, data).unwrap();
    };
    select(4, &0x10_0000_u64.to_le_bytes());
    select(6, &0x8000_u64.to_le_bytes());
    select(8, &4_u32.to_le_bytes());
    select(9, &1_u32.to_le_bytes());
    select(3, &0x55_u32.to_le_bytes());
    // Not aligned, and past the end.
    select(5, &[9; 8]);
    select(u32::MAX, &[9; 8]);
    let stores = device.stores();
    assert_eq!(stores[0], store64(0x10, 0x10_0000 + SHIFT));
    assert_eq!(stores[4..], [store32(0x0c, 0x55)]);
    assert_eq!(device.counts().started, 1);
    assert_eq!(device.counts().ignored, 2);
    let mut data = [0; 4];
    device.function.region_read(bar, 0, &mut data).unwrap();
    assert_eq!(data, [0xff; 4]);
    device.function.reset().unwrap();
    device.function.region_read(bar, 0, &mut data).unwrap();
    assert_eq!(data, [0; 4]);
}

#[test]
fn a_port_does_not_lead_to_itself() {
    let text = PROFILE.to_owned()
        + "[[port]]\nindex = { bar = 0, offset = 0x40, width = 4 }\n\
           data = { bar = 0, offset = 0x44, width = 4 }\nto_bar = 0\n";
    let mut device = Device::new(&text);
    for index in [0x40, 0x44] {
        device.write32(0x40, index);
        device.write32(0x44, 1);
        assert_eq!(device.read32(0x44), u32::MAX);
    }
    assert_eq!(device.stores(), []);
    assert_eq!(device.counts().ignored, 4);
}

#[test]
fn a_reset_forgets_what_the_guest_wrote() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, 0x100);
    device.function.reset().unwrap();
    assert_eq!(device.read64(0x10), 0);
    device.write32(0x24, FROM_MEMORY);
    assert_eq!(device.refusal(), Some(Reason::Length { limit: 0x1000 }));
}

#[test]
fn two_starts_in_one_store_are_two_if_the_first_fails() {
    let (_, transfer) = PROFILE.split_once("[[register]]").unwrap();
    let mut second = format!("[[register]]{transfer}");
    for (from, to) in [
        ("source\"", "source2\""),
        ("destination\"", "destination2\""),
        ("length\"", "length2\""),
        ("command\"", "command2\""),
        ("\"dma\"", "\"dma2\""),
        ("offset = 0x10\n", "offset = 0x40\n"),
        ("offset = 0x18\n", "offset = 0x48\n"),
        ("offset = 0x20\n", "offset = 0x50\n"),
        ("offset = 0x24\n", "offset = 0x28\n"),
    ] {
        second = second.replace(from, to);
    }
    let mut device = Device::new(&(PROFILE.to_owned() + &second).replacen(
        "offset = 0x24\n",
        "offset = 0x2c\n",
        1,
    ));
    device.program_but_start(0x10_0000, 0x8000, 4);
    device.write64(0x40, 0x10_0100);
    device.write64(0x48, 0x8100);
    device.write32(0x50, 8);
    device
        .witness
        .inject(|call| matches!(call, Call::RegionWrite { offset: 0x10, .. }));
    let both = 1_u64 << 32 | 1;
    let started = device.function.region_write(BAR, 0x28, &both.to_le_bytes());
    assert!(started.is_err());
    assert_eq!((device.counts().failed, device.counts().started), (1, 1));
    assert_eq!(device.stores().pop(), Some(store32(0x28, 1)));
}

#[test]
fn a_reset_that_the_guest_made_itself_forgets_too() {
    let mut device = Device::new(PROFILE);
    device.program(0x10_0000, 0x8000, 4, 0x100);
    device.function.was_reset();
    assert_eq!(device.read64(0x10), 0);
}
