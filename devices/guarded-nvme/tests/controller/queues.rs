// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Queues under load, and at their ends.

use std::collections::BTreeMap;
use std::time::Duration;

use address::Gpa;
use guarded_nvme::guest::Doorbell;
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{Driver, GuestRam, Io, Misbehaviour, Personality, Rig};

fn ready(seed: u64) -> (Rig, Driver) {
    let mut rig = Rig::new(GuestRam::plain(2048), Personality::default(), seed).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig), "{:?}", rig.controller.fault());
    (rig, driver)
}

/// Whether the device executes I/O commands.
fn hold_io(rig: &Rig, is_held: bool) {
    rig.model.misbehave(Misbehaviour {
        holds_io: is_held,
        ..Misbehaviour::default()
    });
}

/// Words that only these blocks have.
fn pattern(lba: u64, word: u64) -> u64 {
    lba << 32 | word << 8 | 0x5a
}

fn io(opcode: u8, lba: u64, pages: &[Gpa]) -> Io {
    Io {
        opcode,
        nsid: 2,
        lba,
        count: u16::try_from(pages.len()).unwrap(),
        pages: pages.to_vec(),
        offset: 0,
    }
}

/// Sets of pages, each of another number of them, so that lists and pairs mix.
fn sets(driver: &mut Driver, count: u64) -> Vec<Vec<Gpa>> {
    (0..count)
        .map(|set| (0..1 + set % 5).map(|_| driver.page()).collect())
        .collect()
}

#[test]
fn each_of_many_commands_has_its_own_data() {
    for seed in 0..6 {
        let (mut rig, mut driver) = ready(seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 32), Status::SUCCESS);
        let sets = sets(&mut driver, 31);
        for round in 0..3_u64 {
            for opcode in [1, 2] {
                let mut out = BTreeMap::new();
                for (set, pages) in (0..).zip(&sets) {
                    let lba = 100 * set + 10 * round;
                    for (page, gpa) in (0..).zip(pages) {
                        for word in 0..512 {
                            let value = if opcode == 1 {
                                pattern(lba + page, word)
                            } else {
                                0
                            };
                            rig.ram().put(*gpa + 8 * word, value);
                        }
                    }
                    let words = driver.io(&rig, &io(opcode, lba, pages));
                    out.insert(driver.put(&rig, 1, words), (lba, pages));
                    if set % 7 == 6 {
                        driver.ring(&mut rig, 1);
                        rig.run(1);
                    }
                }
                driver.ring(&mut rig, 1);
                while !out.is_empty() {
                    let done = driver.wait(&mut rig, 1).expect("a completion");
                    assert_eq!(done.status, Status::SUCCESS);
                    let (lba, pages) = out.remove(&done.cid).expect("once each");
                    for (page, gpa) in (0..).zip(pages) {
                        for word in [0, 1, 255, 511] {
                            let found = rig.ram().get(*gpa + 8 * word);
                            assert_eq!(found, pattern(lba + page, word), "{opcode} of {lba}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_completion_queue_that_is_not_read_is_not_overrun() {
    let (mut rig, mut driver) = ready(3);
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
    let refused = [0x80 | 2 << 32, 0, 0, 0, 0, 0, 0, 0];
    let mut cids = Vec::new();
    for round in 0..5 {
        let words = if round % 2 == 0 { flush } else { refused };
        for _ in 0..7 {
            if cids.len() < 14 {
                cids.push(driver.submit(&mut rig, 1, words));
            }
        }
        rig.run(60);
    }
    // Seven are in the queue, and the others wait until it is read.
    let mut found = Vec::new();
    while let Some(done) = driver.wait(&mut rig, 1) {
        found.push(done.cid);
        if found.len() == cids.len() {
            break;
        }
    }
    cids.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, cids);
    rig.run(50);
    assert_eq!(driver.poll(&mut rig, 1), None, "completed twice");
}

#[test]
fn the_guests_command_identifiers_are_its_own_affair() {
    for seed in 0..4 {
        let (mut rig, mut driver) = ready(seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
        let page = driver.page();
        let read = driver.io(&rig, &io(2, 5, &[page]));
        let base = driver.queue_address(1);
        for slot in 0..12 {
            rig.ram().put(base + 64 * slot, read[0] | 0xbeef << 16);
            rig.ram().put_all(base + 64 * slot + 8, &read[1..]);
        }
        rig.ring(Doorbell::tail(1), 12);
        for _ in 0..12 {
            let done = driver.wait(&mut rig, 1).expect("a completion");
            assert_eq!((done.cid, done.status), (0xbeef, Status::SUCCESS));
        }
        assert_eq!(driver.poll(&mut rig, 1), None);
    }
}

#[test]
fn several_queues_may_complete_to_one() {
    let (mut rig, mut driver) = ready(5);
    assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
    let second = driver.page();
    let create = [
        1,
        0,
        0,
        second.0,
        0,
        2 | 7 << 16 | (1 | 1 << 16) << 32,
        0,
        0,
    ];
    assert_eq!(driver.execute(&mut rig, 0, create).status, Status::SUCCESS);
    assert_eq!(
        driver.admin(&mut rig, 4, [1, 0]).status.code(),
        (1, 0x0c),
        "in use"
    );
    for slot in 0..3 {
        rig.ram().put_all(
            second + 64 * slot,
            &[(7 + slot) << 16 | 2 << 32, 0, 0, 0, 0, 0, 0, 0],
        );
    }
    rig.ring(Doorbell::tail(2), 3);
    let own = driver.submit(&mut rig, 1, [2 << 32, 0, 0, 0, 0, 0, 0, 0]);
    let mut found: Vec<_> = (0..4)
        .map(|_| driver.wait(&mut rig, 1).expect("a completion"))
        .map(|done| (done.sq, done.cid))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(1, own), (2, 7), (2, 8), (2, 9)]);
}

#[test]
fn what_is_out_when_a_queue_is_deleted_is_over() {
    for seed in 0..8 {
        let (mut rig, mut driver) = ready(seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
        let page = driver.page();
        let mut out: Vec<u16> = Vec::new();
        for _ in 0..10 {
            let words = driver.io(&rig, &io(2, 5, &[page]));
            out.push(driver.put(&rig, 1, words));
        }
        driver.ring(&mut rig, 1);
        // Some of it is done.
        rig.run(usize::try_from(seed).unwrap());
        hold_io(&rig, true);
        rig.run(20);
        assert_eq!(driver.admin(&mut rig, 0, [1, 0]).status, Status::SUCCESS);
        let mut aborted = 0;
        while let Some(done) = driver.poll(&mut rig, 1) {
            let place = out.iter().position(|cid| *cid == done.cid);
            out.remove(place.expect("once each"));
            let is_aborted = done.status.code() == (0, 8);
            assert!(is_aborted || done.status.is_success(), "{done:?}");
            aborted += u32::from(is_aborted);
        }
        assert_eq!(out, [0; 0], "each has a completion");
        assert!(aborted > 0, "nothing was out");
        hold_io(&rig, false);
        assert_eq!(driver.admin(&mut rig, 4, [1, 0]).status, Status::SUCCESS);
        assert_eq!(
            driver.create_queues(&mut rig, 1, 16),
            Status::SUCCESS,
            "again"
        );
        let words = driver.io(&rig, &io(2, 5, &[page]));
        assert_eq!(driver.execute(&mut rig, 1, words).status, Status::SUCCESS);
    }
}

#[test]
fn aborts_name_commands_of_the_guests() {
    for seed in 0..12 {
        let (mut rig, mut driver) = ready(seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
        let page = driver.page();
        let words = driver.io(&rig, &io(2, 5, &[page]));
        let cid = driver.submit(&mut rig, 1, words);
        hold_io(&rig, seed % 2 == 0);
        rig.run(20);
        let done = driver.admin(&mut rig, 8, [1 | u32::from(cid) << 16, 0]);
        assert_eq!(done.status, Status::SUCCESS);
        let command = driver.wait(&mut rig, 1).expect("a completion");
        assert_eq!(command.cid, cid);
        assert_eq!(command.status.code() == (0, 7), done.result == 0);
        assert_eq!(done.result == 0, seed % 2 == 0);
        for unknown in [1 | 0x9999 << 16, 3, 9, 0xffff_ffff, 0] {
            let done = driver.admin(&mut rig, 8, [unknown, 0]);
            assert_eq!(
                (done.status, done.result),
                (Status::SUCCESS, 1),
                "{unknown:#x}"
            );
        }
    }
}

#[test]
fn many_ranges_wait_for_pages() {
    let (mut rig, mut driver) = ready(2);
    assert_eq!(driver.create_queues(&mut rig, 1, 32), Status::SUCCESS);
    let page = driver.page();
    rig.ram().put_all(page, &[1 << 32, 77]);
    let write = driver.io(&rig, &io(1, 77, &[page]));
    let trim = [9 | 2 << 32, 0, 0, page.0, 0, 4 << 32, 0, 0];
    let mut out: Vec<u16> = (0..20).map(|_| driver.put(&rig, 1, trim)).collect();
    out.push(driver.put(&rig, 1, write));
    driver.ring(&mut rig, 1);
    while !out.is_empty() {
        let done = driver.wait(&mut rig, 1).expect("a completion");
        assert_eq!(done.status, Status::SUCCESS);
        out.retain(|cid| *cid != done.cid);
    }
    assert_eq!(rig.model.executed(false, 9), 20);
}

#[test]
fn commands_that_are_refused_never_reach_the_device() {
    let (mut rig, mut driver) = ready(4);
    assert_eq!(driver.create_queues(&mut rig, 1, 32), Status::SUCCESS);
    for opcode in 0..=u8::MAX {
        if [0, 1, 2, 5, 8, 9, 0xc].contains(&opcode) {
            continue;
        }
        let words = [u64::from(opcode) | 1 << 32, 0, 0, 0x5000, 0, 0, 0, 0];
        let done = driver.execute(&mut rig, 1, words);
        assert_eq!(done.status.code(), (0, 1), "{opcode:#x}");
        assert!(done.status.is_final());
    }
    let words = [2 | 1 << 32, 0, 0, 1 << 40, 0, 0, 0, 0];
    assert_eq!(driver.execute(&mut rig, 1, words).status.code(), (0, 4));
    assert_eq!(rig.model.executed(false, 2), 0);
}

#[test]
fn commands_that_are_out_keep_a_place_for_their_completions() {
    let (mut rig, mut driver) = ready(6);
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    hold_io(&rig, true);
    let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
    let mut out: Vec<u16> = (0..7).map(|_| driver.submit(&mut rig, 1, flush)).collect();
    rig.run(20);
    out.extend((0..7).map(|_| driver.submit(&mut rig, 1, flush)));
    rig.run(20);
    assert_eq!(rig.model.outstanding(1), 7);
    hold_io(&rig, false);
    rig.run(100);
    while !out.is_empty() {
        let done = driver.wait(&mut rig, 1).expect("a completion");
        let place = out.iter().position(|cid| *cid == done.cid);
        out.remove(place.expect("once each"));
    }
}

#[test]
fn a_short_ring_is_filled_as_far_as_the_device_says() {
    for seed in 0..8 {
        let personality = Personality {
            last_entry: 3,
            ..Personality::default()
        };
        let mut rig = Rig::new(GuestRam::plain(2048), personality, seed).unwrap();
        let mut driver = Driver::new();
        assert!(driver.enable(&mut rig));
        assert_eq!(driver.create_queues(&mut rig, 1, 4), Status::SUCCESS);
        let sets = sets(&mut driver, 5);
        let mut out = Vec::new();
        for round in 0..100 {
            let pages = &sets[usize::from(round % 5_u8)];
            let words = driver.io(&rig, &io(2, round.into(), pages));
            out.push(driver.submit(&mut rig, 1, words));
            // Three are out all the time, so that few are ever reported as consumed.
            if out.len() == 3 {
                let done = driver.wait(&mut rig, 1).expect("a completion");
                assert_eq!(done.status, Status::SUCCESS);
                out.retain(|cid| *cid != done.cid);
            }
        }
    }
}

#[test]
fn ranges_of_several_commands_are_kept_apart() {
    let (mut rig, mut driver) = ready(1);
    assert_eq!(driver.create_queues(&mut rig, 1, 32), Status::SUCCESS);
    let page = driver.page();
    for lba in 0..12 {
        let write = driver.io(&rig, &io(1, lba, &[page]));
        assert_eq!(driver.execute(&mut rig, 1, write).status, Status::SUCCESS);
    }
    hold_io(&rig, true);
    let ranges = driver.pages(6);
    for number in 0..6 {
        let place = ranges + 4096 * number;
        rig.ram().put_all(place, &[1 << 32, 2 * number]);
        let trim = [9 | 2 << 32, 0, 0, place.0, 0, 4 << 32, 0, 0];
        driver.submit(&mut rig, 1, trim);
    }
    rig.run(20);
    hold_io(&rig, false);
    for _ in 0..6 {
        assert_eq!(
            driver.wait(&mut rig, 1).expect("a completion").status,
            Status::SUCCESS
        );
    }
    for lba in 0..12 {
        assert_eq!(
            rig.model.block(2, lba).is_none(),
            lba % 2 == 0,
            "block {lba}"
        );
    }
}

#[test]
fn a_command_that_waits_is_over_with_its_queue() {
    let (mut rig, mut driver) = ready(2);
    assert_eq!(driver.create_queues(&mut rig, 1, 32), Status::SUCCESS);
    hold_io(&rig, true);
    let page = driver.page();
    let trim = [9 | 2 << 32, 0, 0, page.0, 0, 4 << 32, 0, 0];
    for _ in 0..20 {
        driver.put(&rig, 1, trim);
    }
    driver.ring(&mut rig, 1);
    rig.run(20);
    assert_eq!(driver.admin(&mut rig, 0, [1, 0]).status, Status::SUCCESS);
    let mut count = 0;
    while let Some(done) = driver.poll(&mut rig, 1) {
        assert_eq!(done.status.code(), (0, 8));
        assert_eq!(done.sq_head, 9, "those that were read");
        count += 1;
    }
    assert_eq!(count, 9, "eight are out, and one was read");
}

#[test]
fn what_was_completed_before_a_queue_was_deleted_stays_so() {
    let mut both = [false; 2];
    for seed in 0..16 {
        let (mut rig, mut driver) = ready(seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 16), Status::SUCCESS);
        driver.submit(&mut rig, 1, [2 << 32, 0, 0, 0, 0, 0, 0, 0]);
        rig.service();
        rig.model.steps(usize::try_from(seed).unwrap());
        driver.submit(&mut rig, 0, [0, 0, 0, 0, 0, 1, 0, 0]);
        rig.service();
        // The monitor sees both at once.
        rig.model.steps(400);
        rig.run(20);
        assert!(!rig.is_fatal(), "{:?}", rig.controller.fault());
        let done = driver.poll(&mut rig, 1).expect("a completion");
        let is_success = rig.model.posted(1) == 1;
        assert_eq!(done.status.is_success(), is_success);
        both[usize::from(is_success)] = true;
    }
    assert_eq!(both, [true; 2]);
}

#[test]
fn commands_that_wait_for_a_doorbell_are_looked_at_soon() {
    let mut rig = Rig::new(GuestRam::plain(1024), Personality::default(), 11).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
    assert_eq!(driver.create_queues(&mut rig, 1, 4), Status::SUCCESS);
    let flush = [1 << 32, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..3 {
        driver.submit(&mut rig, 1, flush);
    }
    rig.run(200);
    let idle = rig.service();
    assert!(!idle.is_busy && idle.within >= Some(Duration::from_millis(100)));
    // The guest has read none of the three completions.
    for _ in 0..3 {
        driver.put(&rig, 1, flush);
    }
    driver.ring(&mut rig, 1);
    rig.run(200);
    let held = rig.service();
    assert!(!held.is_busy && held.within == Some(Duration::from_millis(1)));
    // A store without a signal.
    rig.machine.ring(Doorbell::head(1), 3);
    assert!(rig.service().is_busy);
}
