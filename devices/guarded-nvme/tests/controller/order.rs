// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stores and commands in an order that no driver uses.

use std::time::Duration;

use address::Gpa;
use guarded_nvme::guest::Doorbell;
use guarded_nvme::spec::{Completion, Status};
use guarded_nvme_testing::{Driver, GuestRam, Misbehaviour, Personality, Rig};

const PAGE: u64 = 4096;
/// A page that cannot be translated, with an end that cannot be added to it.
const NO_MEMORY: Gpa = Gpa(!0xfff);
/// Longer than a guest should wait for a place in a completion queue that it has read.
const LONG: Duration = Duration::from_millis(10);

fn rig(seed: u64) -> Rig {
    Rig::new(GuestRam::plain(2048), Personality::default(), seed).unwrap()
}

#[test]
fn admin_queues_are_those_that_were_checked() {
    let mut rig = rig(1);
    rig.set_admin_queues(Gpa(16 * PAGE), Gpa(17 * PAGE), 32);
    rig.configure(0x0046_0001);
    rig.service();
    // CC changes again before the controller is ready, and the registers with it.
    rig.set_admin_queues(NO_MEMORY, NO_MEMORY, 4096);
    rig.configure(0x0046_4001);
    assert!(rig.run_until(|rig| rig.is_ready() || rig.is_fatal()));
    let identify = [6 | 7 << 16, 0, 0, 18 * PAGE, 0, 1, 0, 0];
    rig.ram().put_all(Gpa(16 * PAGE), &identify);
    rig.ring(Doorbell::tail(0), 1);
    rig.run(50);
    assert!(!rig.is_fatal(), "{:?}", rig.controller.fault());
    let words = [17 * PAGE, 17 * PAGE + 8].map(|at| rig.ram().get(Gpa(at)));
    let done = Completion::from_words(words);
    assert_eq!((done.cid, done.status), (7, Status::SUCCESS));
}

#[test]
fn commands_without_a_place_for_their_completions_are_looked_at_soon() {
    let mut rig = rig(2);
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..2 {
        for _ in 0..7 {
            driver.put(&rig, 1, flush);
        }
        driver.ring(&mut rig, 1);
        rig.run(100);
    }
    // The guest's head is memory: when it changes, nothing is signalled.
    let next = rig.service();
    assert!(!next.is_busy);
    let within = next.within.expect("a time");
    assert!(within <= LONG, "{within:?}");
    for _ in 0..14 {
        driver.wait(&mut rig, 1).expect("a completion");
    }
    rig.run(10);
    let within = rig.service().within.expect("a time");
    assert!(within > LONG, "{within:?} without work");
}

#[test]
fn admin_commands_and_events_without_a_place_are_looked_at_soon() {
    let mut rig = rig(3);
    let mut driver = Driver::new();
    assert!(driver.enable_with(&mut rig, 4));
    driver.submit(&mut rig, 0, [0xc, 0, 0, 0, 0, 0, 0, 0]);
    rig.run(20);
    let refused = [0x80, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..3 {
        driver.submit(&mut rig, 0, refused);
        rig.run(5);
    }
    rig.run(50);
    let is_soon = |rig: &mut Rig| rig.service().within.is_some_and(|within| within <= LONG);
    assert!(!is_soon(&mut rig), "nothing waits");
    assert!(rig.model.report(0x02_0101));
    rig.run(50);
    assert!(is_soon(&mut rig), "an event waits");
    driver.wait(&mut rig, 0).expect("a completion");
    rig.run(10);
    driver.submit(&mut rig, 0, refused);
    rig.run(10);
    assert!(is_soon(&mut rig), "a command waits");
}

/// The guest has as many commands and Aborts out as it can, so that the monitor finds no identifier for its own.
#[test]
fn namespaces_stay_while_the_monitor_cannot_ask() {
    for seed in 0..64 {
        let mut rig = rig(seed);
        let mut driver = Driver::new();
        assert!(driver.enable(&mut rig));
        rig.run(50);
        let page = driver.page();
        for step in 0..3 {
            let mut cids = Vec::new();
            for _ in 0..8 {
                cids.push(driver.put(&rig, 0, [6, 0, 0, page.0, 0, 1, 0, 0]));
            }
            driver.ring(&mut rig, 0);
            rig.service();
            for cid in cids {
                driver.put(&rig, 0, [8, 0, 0, 0, 0, u64::from(cid) << 16, 0, 0]);
            }
            driver.ring(&mut rig, 0);
            rig.service();
            if step == 2 {
                rig.model.report(0x04_0002);
            }
            for _ in 0..120 {
                rig.model.steps(1);
                rig.service();
                assert_eq!(rig.controller.namespaces().shown().len(), 2, "seed {seed}");
                while driver.poll(&mut rig, 0).is_some() {}
            }
        }
    }
}

/// An Abort that is still out names no command of the queue that comes after.
#[test]
fn aborts_end_with_the_queue_that_they_were_for() {
    for seed in 0..8 {
        let mut rig = rig(seed);
        let mut driver = Driver::new();
        assert!(driver.enable(&mut rig));
        assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
        rig.model.misbehave(Misbehaviour {
            holds_io: true,
            holds_aborts: true,
            ..Misbehaviour::default()
        });
        let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
        let victim = driver.submit(&mut rig, 1, flush);
        rig.run(20);
        let abort = [8, 0, 0, 0, 0, 1 | u64::from(victim) << 16, 0, 0];
        let abort = driver.submit(&mut rig, 0, abort);
        assert_eq!(driver.admin(&mut rig, 0, [1, 0]).status, Status::SUCCESS);
        let over = driver.wait(&mut rig, 1).expect("a completion");
        assert_eq!(over.status.code(), (0, 8));
        assert_eq!(driver.admin(&mut rig, 4, [1, 0]).status, Status::SUCCESS);
        assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
        let cid = driver.submit(&mut rig, 1, flush);
        rig.run(50);
        rig.model.misbehave(Misbehaviour {
            holds_io: true,
            ..Misbehaviour::default()
        });
        let done = driver.wait(&mut rig, 0).expect("a completion");
        assert_eq!((done.cid, done.result), (abort, 1), "nothing to abort");
        rig.model.misbehave(Misbehaviour::default());
        let done = driver.wait(&mut rig, 1).expect("a completion");
        assert_eq!((done.cid, done.status), (cid, Status::SUCCESS));
        // All identifiers are free again.
        for _ in 0..20 {
            let done = driver.execute(&mut rig, 1, flush);
            assert_eq!(done.status, Status::SUCCESS);
        }
    }
}
