// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The faults that can be put around an engine.

use std::num::NonZeroU64;

use software_edu::sabotage::{FlippedBits, LostInterrupts, Misplaced};

use super::*;

#[test]
fn misplaced_memory_is_off_by_the_distance() {
    let page = i64::try_from(PAGE).unwrap();
    let off = |memory| -> Box<dyn DmaMemory> { Box::new(Misplaced::new(memory, page)) };
    let mut rig = Rig::with(off, |events| events);
    let second = rig.bytes(RAM + PAGE, 600);
    rig.transfer(RAM, BUFFER, 600, TO_BUFFER);
    rig.transfer(BUFFER, RAM + 2 * PAGE, 600, TO_MEMORY);
    assert_eq!(rig.bytes(RAM + 3 * PAGE, 600), second);
    rig.transfer(RAM + PAGE, BUFFER, 1, TO_BUFFER);
    assert_eq!(rig.refused(), [1, RAM + PAGE, 1], "as the guest knows it");
}

#[test]
fn one_bit_flips_in_every_third_transfer() {
    let every = NonZeroU64::new(3).unwrap();
    let spoil = |memory| -> Box<dyn DmaMemory> {
        let spoilt = Box::new(FlippedBits::new(memory, every));
        Box::new(Misplaced::new(spoilt, 0))
    };
    let mut rig = Rig::with(spoil, |events| events);
    let original = rig.bytes(RAM, 1000);
    let wrong_bits = |bytes: &[u8]| -> u32 {
        let pairs = bytes.iter().zip(&original);
        pairs.map(|(one, other)| (one ^ other).count_ones()).sum()
    };
    let mut flips = Vec::new();
    for round in 0..6 {
        // The third and the sixth and so on: in turn a read and a write.
        rig.transfer(RAM, BUFFER, 1000, TO_BUFFER);
        rig.transfer(BUFFER, RAM + PAGE, 1000, TO_MEMORY);
        flips.push(wrong_bits(&rig.bytes(RAM + PAGE, 1000)));
        assert_eq!(wrong_bits(&rig.bytes(RAM, 1000)), 0, "round {round}");
    }
    assert_eq!(flips, [0, 1, 1, 0, 1, 1]);
}

#[test]
fn every_second_interrupt_is_lost() {
    let every = NonZeroU64::new(2).unwrap();
    let lose = |sink| -> Box<dyn InterruptSink> { Box::new(LostInterrupts::new(sink, every)) };
    let mut rig = Rig::with(|memory| memory, lose);
    for expected in [true, false, true] {
        write32(&mut rig.edu, 0x60, 1);
        let up = rig.events.take() == [Event::Line(true)];
        assert_eq!(up, expected);
        write32(&mut rig.edu, 0x64, 1);
        assert_eq!(rig.events.take(), [Event::Line(false)]);
    }
    let message = rig.enable_msi();
    for expected in [0, 1, 0] {
        write32(&mut rig.edu, 0x60, 1);
        assert_eq!(rig.events.take(), vec![message; expected]);
    }
}
