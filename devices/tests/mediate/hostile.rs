// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that try.

use std::thread;

use devices::mediate::{ON_REQUEST, Reason, SHIPPED};
use devices_testing::mediate::{Bus, GuestMemory, Rig, operations};

use super::numbers::Numbers;

#[test]
fn a_hundred_thousand_attempts_reach_nothing_but_the_guests_memory() {
    let mut numbers = Numbers(1);
    let mut seen = operations::Seen::default();
    while seen.attempts < 100_000 {
        let bytes: Vec<u8> = (0..8192)
            .flat_map(|_| numbers.next().to_le_bytes())
            .collect();
        seen.add(&operations::run(&bytes));
    }
    assert!(seen.is_all(), "{seen:?}");
    assert!(seen.started >= 2000 && seen.refused >= 50_000, "{seen:?}");
}

/// An address of the guest or the host, or none.
fn address(numbers: &mut Numbers, gpas: &[u64]) -> u64 {
    let page = numbers.choose(gpas);
    let low = numbers.next() % 0x1000;
    match numbers.next() % 8 {
        0 => numbers.next(),
        1 => page.wrapping_sub(low),
        2 => 0x20_0000_0000 + (low << 6),
        3 => u64::MAX - low,
        4 => 0x40000 + low,
        _ => page + low,
    }
}

/// Stores in any order and width; returns how many of them ask for a start.
fn attack(bus: &Bus, gpas: &[u64], mut numbers: Numbers) -> u64 {
    let mut starts = 0;
    for _ in 0..60_000 {
        let width = numbers.choose(&[8, 8, 8, 8, 4, 4, 2, 1]);
        let offset = numbers.choose(&[0x80, 0x88, 0x90, 0x98, 0x98, 0x84, 0x8c, 0x9c, 0x82]);
        let offset = offset / width as u64 * width as u64;
        let value = match (offset, numbers.next() % 4) {
            (0x98, _) => numbers.next() % 4,
            (0x90, _) => numbers.next() % 0x1100,
            (_, 0) => 0x40000 + numbers.next() % 0x1000,
            _ => address(&mut numbers, gpas),
        };
        bus.write(offset, width, value);
        starts += u64::from(offset == 0x98 && width >= 4 && value & 1 != 0);
    }
    starts
}

#[test]
fn two_vcpus_that_race_reach_nothing_either() {
    let guest = GuestMemory::default();
    let mut rig = Rig::new(&guest);
    let gpas = guest.gpas();
    let control = rig.worker.control();
    let (worker, bus) = (&mut rig.worker, &rig.bus);
    let starts = thread::scope(|scope| {
        scope.spawn(move || worker.run());
        let attackers = [3, 4].map(|seed| {
            let gpas = &gpas;
            scope.spawn(move || attack(bus, gpas, Numbers(seed)))
        });
        let starts = attackers.map(thread::ScopedJoinHandle::join);
        control.stop();
        starts.into_iter().map(Result::unwrap).sum::<u64>()
    });
    rig.check_host(&guest, guest.ram());
    let counts = rig.counters.read();
    assert_eq!(counts.started + counts.refused + counts.busy, starts);
    assert!(counts.started > 0 && counts.refused > 10_000, "{counts:?}");
}

#[test]
fn a_mediated_transfer_moves_the_guests_bytes() {
    let guest = GuestMemory::default();
    let mut rig = Rig::new(&guest);
    let [first, .., last] = guest.gpas()[..] else {
        panic!("no memory");
    };
    for (from, to, count) in [(first, last + 0x100, 0xf00), (last, first, 0x1000)] {
        rig.bus.start([from, 0x40000, count, 1]);
        assert!(rig.worker.step());
        rig.bus.start([0x40000, to, count, 3]);
        assert!(rig.worker.step());
        for at in 0..count {
            let mut ram = rig.memory.ram();
            let byte = ram.byte(guest.byte(from + at).unwrap()).copied();
            assert_eq!(ram.byte(guest.byte(to + at).unwrap()).copied(), byte);
        }
    }
    assert_eq!(rig.counters.read().started, 4);
    rig.check_host(&guest, guest.ram());
}

#[test]
fn a_device_that_does_not_take_an_address_is_not_started() {
    let guest = GuestMemory::default();
    let (_, text) = ON_REQUEST[0];
    // The engine takes the low half for the whole, which is an address of the host.
    let text = text.replacen(
        "offset = 0x80\nwidth = 8\naccesses = [4, 8]\npartial = \"replace\"",
        "offset = 0x80\nwidth = 8\nstore = 4",
        1,
    );
    let mut rig = Rig::with(&guest, &text);
    rig.bus.start([guest.gpas()[0], 0x40000, 16, 1]);
    assert!(!rig.worker.step());
    let counts = rig.counters.read();
    assert_eq!((counts.started, counts.failed), (0, 1));
}

#[test]
fn the_profile_that_edus_ids_pick_has_28_address_bits() {
    let (_, text) = SHIPPED[0];
    for (host, reached) in [
        (0x0f00_0000, true),
        (0x1000_0000, false),
        (0x20_0000_0000, false),
    ] {
        let guest = GuestMemory::at(host);
        let rig = Rig::with(&guest, text);
        let gpa = guest.gpas()[0];
        for transfer in [[gpa, 0x40000, 16, 1], [0x40000, gpa, 16, 3]] {
            rig.bus.start(transfer);
            rig.bus.reset();
            rig.bus.config_write(4, &[6, 0]);
        }
        let counts = rig.counters.read();
        let expected = if reached { (2, 0) } else { (0, 2) };
        assert_eq!((counts.started, counts.refused), expected);
        let reason = counts.last_refusal.map(|refusal| refusal.reason);
        let is_unreachable =
            |reason| matches!(reason, Reason::Unreachable { last, .. } if last == 0x0fff_ffff);
        assert_eq!(reason.is_some_and(is_unreachable), !reached);
        assert_eq!(rig.violations.list(), Vec::<String>::new());
    }
}
