// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A usual driver's life.

use address::Gpa;
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{Driver, GuestRam, Io, Personality, Rig};

fn rig(personality: Personality, seed: u64) -> Rig {
    Rig::new(GuestRam::plain(2048), personality, seed).unwrap()
}

/// Pages that are not next to one another.
fn pages(driver: &mut Driver, count: u16) -> Vec<Gpa> {
    let mut pages: Vec<Gpa> = (0..count).map(|_| driver.page()).collect();
    pages.reverse();
    pages
}

fn fill(rig: &Rig, pages: &[Gpa], seed: u64) {
    for page in pages {
        for word in 0..512 {
            rig.ram()
                .put(*page + 8 * word, (page.0 + word * 0x1_0001) ^ seed << 40);
        }
    }
}

fn contents(rig: &Rig, pages: &[Gpa], offset: u64, bytes: usize) -> Vec<u8> {
    let all: Vec<u8> = pages
        .iter()
        .flat_map(|page| rig.ram().bytes(*page, 4096))
        .collect();
    let offset = usize::try_from(offset).unwrap();
    all[offset..offset + bytes].to_vec()
}

/// Writes with one set of pages and reads with another.
fn write_and_read(rig: &mut Rig, driver: &mut Driver, count: u16, offset: u64) {
    let bytes = usize::from(count) * 512;
    let needed = u16::try_from((usize::try_from(offset).unwrap() + bytes).div_ceil(4096)).unwrap();
    let (from, to) = (pages(driver, needed), pages(driver, needed));
    fill(rig, &from, count.into());
    let mut io = Io {
        opcode: 1,
        nsid: 1,
        lba: 1000,
        count,
        pages: from.clone(),
        offset,
    };
    let words = driver.io(rig, &io);
    assert_eq!(driver.execute(rig, 1, words).status, Status::SUCCESS);
    io.opcode = 2;
    io.pages = to.clone();
    let words = driver.io(rig, &io);
    assert_eq!(driver.execute(rig, 1, words).status, Status::SUCCESS);
    let written = contents(rig, &from, offset, bytes);
    assert_eq!(
        contents(rig, &to, offset, bytes),
        written,
        "{count} blocks at {offset}"
    );
    assert_eq!(rig.model.block(1, 1000).unwrap(), written[..512]);
}

fn life(personality: Personality, seed: u64) {
    let mut rig = rig(personality, seed);
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig), "{:?}", rig.controller.fault());
    let identify = driver.identify(&mut rig, 1, 0);
    assert_eq!(&identify[4..14], b"MODEL-0001");
    assert_eq!(identify[536..540], [0; 4], "SGLS");
    let list = driver.identify(&mut rig, 2, 0);
    assert_eq!(list[..8], [1, 0, 0, 0, 2, 0, 0, 0]);
    let namespace = driver.identify(&mut rig, 0, 1);
    assert_eq!(namespace[134], 9);
    let queues = driver.admin(&mut rig, 9, [7, 0x3_0003]);
    assert_eq!(queues.result, 0x3_0003);
    assert_eq!(driver.create_queues(&mut rig, 1, 64), Status::SUCCESS);
    assert_eq!(driver.create_queues(&mut rig, 2, 256), Status::SUCCESS);
    for (count, offset) in [(1, 0), (8, 0), (8, 512), (16, 0), (24, 4), (128, 4092)] {
        write_and_read(&mut rig, &mut driver, count, offset);
    }
    assert!(rig.machine.raised(1) > 0, "no interrupt of I/O");
    assert_eq!(
        driver
            .execute(&mut rig, 2, [u64::from(0_u32), 0, 0, 0, 0, 0, 0, 0])
            .status
            .code(),
        (0, 0x0b)
    );
    let flush = [1 << 32, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(driver.execute(&mut rig, 2, flush).status, Status::SUCCESS);
    let ranges = driver.page();
    rig.ram().put_all(ranges, &[1 << 32, 1000]);
    let trim = [9 | 1 << 32, 0, 0, ranges.0, 0, 4 << 32, 0, 0];
    assert!(rig.model.block(1, 1000).is_some());
    assert_eq!(driver.execute(&mut rig, 1, trim).status, Status::SUCCESS);
    assert!(rig.model.block(1, 1000).is_none());
    assert!(rig.model.block(1, 1001).is_some());
    for id in [2, 1] {
        assert_eq!(driver.admin(&mut rig, 0, [id, 0]).status, Status::SUCCESS);
        assert_eq!(driver.admin(&mut rig, 4, [id, 0]).status, Status::SUCCESS);
    }
    assert_eq!(rig.model.submission_queues(), [0; 0]);
    rig.configure(0x0046_4001);
    assert!(rig.run_until(|rig| rig.read(0x1c) >> 2 & 3 == 2), "SHST");
    assert!(driver.disable(&mut rig));
    assert!(!rig.model.is_bus_master());
    assert!(driver.enable(&mut rig), "again");
    assert_eq!(driver.create_queues(&mut rig, 1, 2), Status::SUCCESS);
    write_and_read(&mut rig, &mut driver, 8, 0);
    assert!(driver.disable(&mut rig));
    let physical = rig.ram().physical().clone();
    let Rig { controller, .. } = rig;
    assert!(physical.monitor_pages() > 0);
    controller.detach().unwrap();
    assert_eq!(physical.monitor_pages(), 0);
}

#[test]
fn a_driver_works_on_a_device_that_takes_every_freedom() {
    for seed in 0..12 {
        life(Personality::default(), seed);
    }
}

#[test]
fn a_driver_works_on_a_device_that_has_everything() {
    let personality = Personality {
        controllers: Some(vec![7]),
        ..Personality::rich()
    };
    for seed in 0..3 {
        life_of_rich(personality.clone(), seed);
    }
}

fn life_of_rich(personality: Personality, seed: u64) {
    let mut rig = rig(personality, seed);
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig), "{:?}", rig.controller.fault());
    let list = driver.identify(&mut rig, 2, 0);
    assert_eq!(list[..16], [1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.identify(&mut rig, 0, 3), vec![0; 4096], "hidden");
    let namespace = driver.identify(&mut rig, 0, 1);
    assert_eq!((namespace[30], namespace[31], namespace[4095]), (0, 0, 0));
    assert_eq!(rig.controller.namespaces().hidden().len(), 2);
    assert_eq!(driver.create_queues(&mut rig, 1, 64), Status::SUCCESS);
    write_and_read(&mut rig, &mut driver, 4096, 0);
}
