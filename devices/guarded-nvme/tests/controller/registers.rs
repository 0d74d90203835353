// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Loads and stores of any width and order.

use guarded_nvme::guest::Doorbell;
use guarded_nvme::registers::Identity;
use guarded_nvme::registers::{Layout, Registers, Shown, Store};
use guarded_nvme::spec::registers::{Capabilities, Version};
use proptest::collection::vec;
use proptest::prelude::*;

fn registers() -> Registers {
    let device = Capabilities(0x2f_0000_0000 | 2047 | 1 << 37 | 10 << 24);
    let identity = Identity::new(device, Version(0x1_0400), 0, 256);
    Registers::new(identity, Layout::new(4096, 4, 5).unwrap())
}

fn read<const N: usize>(registers: &Registers, offset: u64) -> [u8; N] {
    let mut data = [0xa5; N];
    registers.read(offset, &mut data);
    data
}

fn dword(registers: &Registers, offset: u64) -> u32 {
    u32::from_le_bytes(read(registers, offset))
}

#[test]
fn the_registers_of_a_new_controller() {
    let registers = registers();
    let cap = u64::from_le_bytes(read(&registers, 0));
    assert_eq!(cap, 255 | 1 << 16 | 30 << 24 | 10 << 32 | 1 << 37);
    assert_eq!(dword(&registers, 8), 0x1_0400);
    for offset in (0xc..0x2000).step_by(4) {
        assert_eq!(dword(&registers, offset), 0, "{offset:#x}");
    }
}

#[test]
fn hidden_registers_take_nothing() {
    let mut registers = registers();
    let hidden = (0..0x1000)
        .step_by(4)
        .filter(|at| ![0x14, 0x24, 0x28, 0x2c, 0x30, 0x34].contains(at));
    let before: Vec<u32> = (0..0x1000)
        .step_by(4)
        .map(|at| dword(&registers, at))
        .collect();
    for offset in hidden {
        for value in [0_u32, !0, 0x4e56_4d65, 0x4e4d_5600] {
            assert_eq!(
                registers.write(offset, &value.to_le_bytes()),
                Store::Nothing
            );
        }
    }
    let after: Vec<u32> = (0..0x1000)
        .step_by(4)
        .map(|at| dword(&registers, at))
        .collect();
    assert_eq!(after, before);
    assert_eq!(registers.take_change(), None);
}

#[test]
fn queue_addresses_are_stored_in_halves_or_whole() {
    let mut registers = registers();
    for register in [0x28, 0x30] {
        registers.write(register + 4, &0x11_u32.to_le_bytes());
        registers.write(register, &0x2222_2fff_u32.to_le_bytes());
        assert_eq!(
            u64::from_le_bytes(read(&registers, register)),
            0x11_2222_2000
        );
        registers.write(register, &0x33_4444_4fff_u64.to_le_bytes());
        assert_eq!(dword(&registers, register), 0x4444_4000);
        assert_eq!(dword(&registers, register + 4), 0x33);
    }
    registers.write(0x24, &[0xff; 4]);
    assert_eq!(dword(&registers, 0x24), 0x0fff_0fff);
}

#[test]
fn other_accesses_read_zeros_and_are_dropped() {
    let mut registers = registers();
    assert_eq!(read::<1>(&registers, 0), [0]);
    assert_eq!(read::<2>(&registers, 8), [0; 2]);
    assert_eq!(read::<4>(&registers, 2), [0; 4]);
    assert_eq!(read::<8>(&registers, 8), [0; 8]);
    assert_eq!(read::<8>(&registers, 4), [0; 8]);
    assert_eq!(read::<8>(&registers, u64::MAX - 7), [0; 8]);
    for length in [1, 2, 8] {
        assert_eq!(registers.write(0x14, &[1; 8][..length]), Store::Nothing);
        assert_eq!(registers.write(0x1000, &[1; 8][..length]), Store::Nothing);
    }
    assert_eq!(registers.write(0x16, &[1; 4]), Store::Nothing);
    assert_eq!(dword(&registers, 0x14), 0);
    let doorbell = registers.write(0x1000, &[1, 0, 0, 0]);
    assert_eq!(doorbell, Store::Doorbell(Doorbell::tail(0), 1));
    assert_eq!(read::<4>(&registers, 0x1000), [0; 4], "write only");
}

#[test]
fn changes_of_cc_are_not_lost() {
    let mut registers = registers();
    let mut store = |value: u32| registers.write(0x14, &value.to_le_bytes());
    assert_eq!(store(1), Store::Control);
    assert_eq!(store(1), Store::Nothing);
    assert_eq!(store(0), Store::Control);
    assert_eq!(store(1), Store::Control);
    let change = registers.take_change().unwrap();
    assert!(change.was_disabled && change.control.configuration.is_enabled());
    assert_eq!(registers.take_change(), None);
    registers.write(0x14, &0x4001_u32.to_le_bytes());
    let change = registers.take_change().unwrap();
    assert!(!change.was_disabled);
    assert_eq!(change.control.configuration.shutdown(), 1);
}

#[test]
fn status_shows_what_the_controller_says() {
    let mut registers = registers();
    registers.show(Shown {
        is_ready: true,
        is_fatal: true,
        shutdown: 2,
        is_paused: true,
    });
    assert_eq!(dword(&registers, 0x1c), 0b10_1011);
    registers.reset();
    assert_eq!(dword(&registers, 0x1c), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A second reading of the rules, register by register.
    #[test]
    fn any_stores_leave_what_the_rules_say(
        stores in vec((prop_oneof![0..0x40_u64, 0x1000..0xb000_u64, any::<u64>()], 0..4_u32, any::<u64>()), 1..60),
    ) {
        let mut registers = registers();
        let mut model = [0_u32; 16];
        for (offset, width, value) in stores {
            let length = 1_usize << width;
            let bytes = value.to_le_bytes();
            let found = registers.write(offset, &bytes[..length]);
            let is_doorbell = length == 4 && (0x1000..0xb000).contains(&offset) && offset % 4096 == 0;
            prop_assert_eq!(is_doorbell, matches!(found, Store::Doorbell(..)));
            let is_wide = length == 8 && [0, 0x28, 0x30].contains(&offset);
            let is_dword = length == 4 && offset % 4 == 0;
            if !is_wide && !is_dword || offset >= 0x40 {
                continue;
            }
            let place = usize::try_from(offset / 4).unwrap();
            for (at, word) in (place..).zip(bytes.chunks_exact(4)).take(length / 4) {
                let word = u32::from_le_bytes(word.try_into().unwrap());
                let mask = match at * 4 {
                    0x14 | 0x2c | 0x34 => !0,
                    0x24 => 0x0fff_0fff,
                    0x28 | 0x30 => !0xfff,
                    _ => 0,
                };
                model[at] = word & mask;
            }
        }
        for (at, value) in (0..0x40).step_by(4).zip(model) {
            if at >= 0x14 {
                prop_assert_eq!(dword(&registers, at), value, "{:#x}", at);
            }
        }
    }
}
