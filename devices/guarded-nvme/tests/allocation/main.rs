// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The way of an I/O command allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use address::Gpa;
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{Driver, GuestRam, Io, Personality, Rig};

/// The system's allocator, and how often this thread has called it.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not there while a thread ends, which is no matter.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all calls are passed on as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator in one service of the controller.
fn served(rig: &mut Rig) -> u64 {
    let before = COUNT.get();
    rig.service();
    COUNT.get() - before
}

#[test]
fn io_is_served_without_the_allocator() {
    let mut rig = Rig::new(GuestRam::plain(2048), Personality::default(), 1).unwrap();
    let mut driver = Driver::new();
    assert!(driver.enable(&mut rig));
    assert_eq!(driver.create_queues(&mut rig, 1, 64), Status::SUCCESS);
    let pages: Vec<Gpa> = (0..20).map(|_| driver.page()).collect();
    let ranges = [9 | 2 << 32, 0, 0, pages[0].0, 0, 4 << 32, 0, 0];
    let refused = [0x80 | 2 << 32, 0, 0, 0, 0, 0, 0, 0];
    let mut calls = Vec::new();
    for round in 0..8 {
        for count in [1, 2, 3, 20] {
            let io = Io {
                opcode: 1 + round % 2,
                nsid: 2,
                lba: 0,
                count,
                pages: pages[..count.into()].to_vec(),
                offset: 0,
            };
            let words = driver.io(&rig, &io);
            driver.put(&rig, 1, words);
        }
        driver.put(&rig, 1, ranges);
        driver.put(&rig, 1, refused);
        driver.ring(&mut rig, 1);
        let mut done = 0;
        while done < 6 {
            calls.push(served(&mut rig));
            rig.model.steps(20);
            calls.push(served(&mut rig));
            while driver.poll(&mut rig, 1).is_some() {
                done += 1;
            }
        }
    }
    // The first interrupt is noted in a new place of the test's own.
    let first: u64 = calls.drain(..10).sum();
    assert!(first <= 10, "{first}");
    assert!(calls.len() > 20);
    assert_eq!(calls.iter().sum::<u64>(), 0, "{calls:?}");
}
