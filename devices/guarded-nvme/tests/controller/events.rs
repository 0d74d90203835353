// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events, log pages, features, and changes of namespaces.

use guarded_nvme::guest::Doorbell;
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{Driver, GuestRam, Misbehaviour, ModelNamespace, Personality, Rig};

fn ready(personality: Personality, seed: u64) -> (Rig, Driver) {
    let mut rig = Rig::new(GuestRam::plain(2048), personality, seed).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig), "{:?}", rig.controller.fault());
    rig.run(50);
    (rig, driver)
}

fn request(rig: &mut Rig, driver: &mut Driver) -> u16 {
    driver.submit(rig, 0, [0xc, 0, 0, 0, 0, 0, 0, 0])
}

/// Reads 4096 bytes of a log page.
fn log(rig: &mut Rig, driver: &mut Driver, page: u32) -> Vec<u8> {
    let place = driver.page();
    let words = [
        2 | u64::from(u32::MAX) << 32,
        0,
        0,
        place.0,
        0,
        u64::from(page | 0x3ff_0000),
        0,
        0,
    ];
    assert_eq!(driver.execute(rig, 0, words).status, Status::SUCCESS);
    rig.ram().bytes(place, 4096)
}

fn set_feature(rig: &mut Rig, driver: &mut Driver, feature: u32, value: u32) -> Status {
    driver.admin(rig, 9, [feature, value]).status
}

#[test]
fn event_requests_stay_with_the_monitor_and_are_limited() {
    let (mut rig, mut driver) = ready(Personality::default(), 1);
    let open: Vec<u16> = (0..4).map(|_| request(&mut rig, &mut driver)).collect();
    let fifth = driver.execute(&mut rig, 0, [0xc, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fifth.status.code(), (1, 5));
    assert_eq!(rig.model.executed(true, 0xc), 4, "the monitor's own");
    let done = driver.admin(&mut rig, 8, [u32::from(open[0]) << 16, 0]);
    assert_eq!(done.result, 1, "they are not aborted");
    assert!(rig.model.report(0x02_0101));
    let event = driver.wait(&mut rig, 0).expect("an event");
    assert_eq!((event.cid, event.result), (open[0], 0x02_0101));
    assert!(rig.machine.raised(0) > 0);
}

#[test]
fn bad_doorbells_are_reported_as_errors() {
    let (mut rig, mut driver) = ready(Personality::default(), 2);
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    request(&mut rig, &mut driver);
    rig.ring(Doorbell::tail(1), 8);
    let event = driver.wait(&mut rig, 0).expect("an event");
    assert_eq!(event.result, 0x01_0100, "a bad value");
    request(&mut rig, &mut driver);
    rig.ring(Doorbell::tail(3), 1);
    rig.run(20);
    assert_eq!(
        driver.poll(&mut rig, 0),
        None,
        "not before the log page was read"
    );
    log(&mut rig, &mut driver, 1);
    let event = driver.wait(&mut rig, 0).expect("an event");
    assert_eq!(event.result, 0x01_0000, "no such queue");
    let flush = [2 << 32, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        driver.execute(&mut rig, 1, flush).status,
        Status::SUCCESS,
        "no harm done"
    );
    request(&mut rig, &mut driver);
    log(&mut rig, &mut driver, 1);
    rig.ring(Doorbell::head(1), 5);
    let event = driver.wait(&mut rig, 0).expect("an event");
    assert_eq!(event.result, 0x01_0100, "a head past the tail");
}

#[test]
fn namespaces_are_gone_through_again_when_they_change() {
    for seed in 0..4 {
        let (mut rig, mut driver) = ready(Personality::rich(), seed);
        assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
        assert_eq!(
            set_feature(&mut rig, &mut driver, 0xb, 0x100),
            Status::SUCCESS
        );
        request(&mut rig, &mut driver);
        let flush = |nsid: u64| [nsid << 32, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            driver.execute(&mut rig, 1, flush(3)).status.code(),
            (0, 0x0b)
        );
        rig.model.change_namespace(ModelNamespace::plain(3, 12));
        let hidden = ModelNamespace {
            metadata: 16,
            ..ModelNamespace::plain(2, 12)
        };
        rig.model.change_namespace(hidden);
        let event = driver.wait(&mut rig, 0).expect("a notice");
        assert_eq!(event.result, 0x04_0002);
        rig.run(100);
        assert_eq!(
            driver.execute(&mut rig, 1, flush(3)).status,
            Status::SUCCESS
        );
        assert_eq!(
            driver.execute(&mut rig, 1, flush(2)).status.code(),
            (0, 0x0b)
        );
        let changed = log(&mut rig, &mut driver, 4);
        assert_eq!(changed[..12], [2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(log(&mut rig, &mut driver, 4), vec![0; 4096], "read once");
        let list = driver.identify(&mut rig, 2, 1);
        assert_eq!(list[..12], [3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn a_guest_that_wants_no_notices_gets_none_and_is_guarded_all_the_same() {
    let (mut rig, mut driver) = ready(Personality::default(), 3);
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    request(&mut rig, &mut driver);
    for metadata in [8, 16] {
        rig.model.change_namespace(ModelNamespace {
            metadata,
            ..ModelNamespace::plain(1, 9)
        });
        rig.run(200);
    }
    assert_eq!(driver.poll(&mut rig, 0), None);
    let flush = [1 << 32, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(driver.execute(&mut rig, 1, flush).status.code(), (0, 0x0b));
    assert!(
        rig.model.executed(true, 2) >= 2,
        "the device's log page was read each time"
    );
}

#[test]
fn log_pages_of_the_most_bytes_take_turns() {
    let (mut rig, mut driver) = ready(Personality::rich(), 4);
    let place = driver.pages(33 * 3);
    let lists = driver.page();
    let mut out = Vec::new();
    for number in 0..3 {
        let base = place + number * 33 * 4096;
        let list = lists + number * 512;
        for page in 0..32 {
            rig.ram().put(list + 8 * page, base.0 + 4096 * (page + 1));
        }
        // 32 pages, with an offset.
        let words = [2, 0, 0, base.0 + 2048, list.0, 5 | 0x7fff << 16, 0, 0];
        out.push(driver.put(&rig, 0, words));
    }
    driver.ring(&mut rig, 0);
    for _ in 0..3 {
        let done = driver.wait(&mut rig, 0).expect("a completion");
        assert_eq!(done.status, Status::SUCCESS);
        out.retain(|cid| *cid != done.cid);
    }
    assert_eq!(out, [0; 0]);
    for number in 0..3 {
        let base = place + number * 33 * 4096;
        let data = rig.ram().bytes(base + 2048, 32 * 4096);
        assert_eq!(data[..8], [0xff; 8], "Delete SQ, Create SQ");
        assert_eq!(data[4 * 0x7c..4 * 0x80], [0; 16], "not what is refused");
        assert!(data[2048..].iter().all(|byte| *byte == 0));
        assert!(rig.ram().bytes(base, 2048) == [0; 2048]);
    }
}

#[test]
fn features_pass_through_pages_of_the_monitors() {
    let (mut rig, mut driver) = ready(Personality::default(), 5);
    let place = driver.page();
    rig.ram().put_all(place, &[!0; 512]);
    for (feature, bytes) in [(0xe, 8), (0x16, 512), (0x81, 8)] {
        let words = |opcode: u64| [opcode, 0, 0, place.0, 0, feature, 0, 0];
        assert_eq!(
            driver.execute(&mut rig, 0, words(9)).status,
            Status::SUCCESS
        );
        assert_eq!(
            driver.execute(&mut rig, 0, words(0xa)).status,
            Status::SUCCESS
        );
        let data = rig.ram().bytes(place, 4096);
        let expected = if feature == 0x16 { 1 } else { bytes };
        assert_eq!(data[..expected], vec![0x5a; expected]);
        assert_eq!(data[expected..bytes], vec![0; bytes - expected]);
        assert_eq!(data[bytes..], vec![0xff; 4096 - bytes]);
        rig.ram().put_all(place, &[!0; 512]);
    }
    let behavior = rig.model.feature_data(0x16);
    assert_eq!((behavior[0], behavior.len()), (0xff, 512));
    assert!(behavior[1..].iter().all(|byte| *byte == 0), "ACRE alone");
    assert_eq!(set_feature(&mut rig, &mut driver, 6, 1), Status::SUCCESS);
    assert_eq!(driver.admin(&mut rig, 0xa, [6, 0]).result, 1);
    let off = [0xa, 0, 0, place.0, 0, 0xd, 0, 0];
    assert_eq!(driver.execute(&mut rig, 0, off).result, 0);
    assert_eq!(
        rig.ram().bytes(place, 4096),
        vec![0; 4096],
        "no host memory buffer"
    );
}

#[test]
fn structures_go_where_the_guest_said_when_it_asked() {
    let (mut rig, mut driver) = ready(Personality::default(), 6);
    let (first, second) = (driver.page(), driver.page());
    let words = [6, 0, 0, first.0 + 512, second.0, 1, 0, 0];
    assert_eq!(driver.execute(&mut rig, 0, words).status, Status::SUCCESS);
    assert_eq!(&rig.ram().bytes(first + 512 + 4, 10), b"MODEL-0001");
    let outside = [6, 0, 0, 1 << 40, 0, 1, 0, 0];
    assert_eq!(driver.execute(&mut rig, 0, outside).status.code(), (0, 4));
    let odd = [6, 0, 0, first.0 + 2, 0, 1, 0, 0];
    assert_eq!(driver.execute(&mut rig, 0, odd).status.code(), (0, 0x13));
}

#[test]
fn open_requests_take_no_place_in_the_completion_queue() {
    let mut rig = Rig::new(GuestRam::plain(2048), Personality::default(), 8).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable_with(&mut rig, 4));
    for _ in 0..4 {
        request(&mut rig, &mut driver);
        rig.run(5);
    }
    driver.identify(&mut rig, 1, 0);
}

#[test]
fn no_command_is_taken_while_namespaces_are_gone_through() {
    let (mut rig, mut driver) = ready(Personality::default(), 9);
    assert_eq!(driver.create_queues(&mut rig, 1, 8), Status::SUCCESS);
    rig.model.report(0x04_0002);
    let held = Misbehaviour {
        silent: true,
        ..Misbehaviour::default()
    };
    assert!(rig.run_until(|rig| rig.model.executed(true, 2) > 0));
    rig.model.misbehave(held);
    driver.submit(&mut rig, 1, [2 << 32, 0, 0, 0, 0, 0, 0, 0]);
    rig.run(20);
    assert_eq!(rig.model.outstanding(1), 0);
    rig.model.misbehave(Misbehaviour::default());
    assert_eq!(
        driver.wait(&mut rig, 1).expect("a completion").status,
        Status::SUCCESS
    );
}
