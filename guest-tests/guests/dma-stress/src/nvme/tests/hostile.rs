// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that mean harm: every start and every look ends, with an error or a sane result.

use core::cell::Cell;
use std::vec::Vec;

use proptest::prelude::*;

use super::machine::{Allocator, Memory, Ticking};
use super::simulated::{BAR_BYTES, Driver, Handle, Posted, Simulated, check};
use crate::nvme::{
    Command, CommandId, Completion, CompletionFault, Controller, NvmeError, SubmitError,
};
use crate::registers::Registers;

fn machine() -> (Memory, Handle, Driver) {
    let memory = Memory::default();
    let device = Simulated::new(&memory, 8, 9, 16, 0).share();
    let driver = device.start().expect("a driver");
    (memory, device, driver)
}

/// Completes command `cid` in queue pair 1 as the device would, and looks.
fn after(
    driver: &mut Driver,
    device: &Handle,
    sqid: u16,
    head: u16,
    cid: u16,
) -> (Vec<Completion>, Result<(), NvmeError>) {
    let posted = Posted {
        sqid,
        head,
        cid: cid.into(),
        status: 0,
    };
    device.0.borrow_mut().post_raw(1, posted);
    let mut done = Vec::new();
    let polled = driver.poll(&mut done);
    (done, polled)
}

fn fault(fault: CompletionFault) -> NvmeError {
    NvmeError::Completion { queue: 1, fault }
}

#[test]
fn completions_that_cannot_be_are_errors() {
    // None is in flight.
    for cid in [0, 1, 6, 7, 63, 64, 0x1ff, 0x8000, 0xffff] {
        let (_, device, mut driver) = machine();
        let (done, polled) = after(&mut driver, &device, 1, 0, cid);
        assert_eq!(polled, Err(fault(CompletionFault::UnknownCommand { cid })));
        assert!(done.is_empty());
    }
    // One is.
    for (sqid, head, expected) in [
        (1, 7, None),
        (
            1,
            8,
            Some(CompletionFault::HeadOutOfRange {
                head: 8,
                entries: 8,
            }),
        ),
        (0, 0, Some(CompletionFault::WrongQueue { sqid: 0 })),
        (
            0xffff,
            0,
            Some(CompletionFault::WrongQueue { sqid: 0xffff }),
        ),
    ] {
        let (_, device, mut driver) = machine();
        let CommandId(cid) = driver.submit(Command::flush()).unwrap();
        let (done, polled) = after(&mut driver, &device, sqid, head, cid);
        assert_eq!(polled.err(), expected.map(fault));
        assert_eq!(done.len(), usize::from(expected.is_none()));
    }
}

#[test]
fn a_command_completes_once() {
    let (_, device, mut driver) = machine();
    let first = driver.submit(Command::flush()).unwrap();
    let second = driver.submit(Command::flush()).unwrap();
    {
        let mut device = device.0.borrow_mut();
        for id in [first, second, first] {
            device.post(1, 1, id.0.into(), 0);
        }
    }
    let mut done = Vec::new();
    let again = fault(CompletionFault::UnknownCommand { cid: first.0 });
    assert_eq!(driver.poll(&mut done), Err(again));
    // What came before the nonsense counts.
    assert_eq!(done, [(first, Ok(())), (second, Ok(()))]);
    // After it nothing does.
    assert_eq!(driver.poll(&mut done), Err(again));
    assert_eq!(driver.check(), Err(again));
    assert_eq!(
        driver.submit(Command::flush()),
        Err(SubmitError::Broken(again))
    );
    assert_eq!(done.len(), 2);
    assert_eq!(driver.shutdown(), Ok(()));
}

#[test]
fn a_late_completion_is_not_taken_for_the_slots_next_command() {
    let (_, device, mut driver) = machine();
    let first = driver.submit(Command::flush()).unwrap();
    assert_eq!(after(&mut driver, &device, 1, 0, first.0).1, Ok(()));
    let second = driver.submit(Command::flush()).unwrap();
    assert_ne!(first, second);
    let (_, polled) = after(&mut driver, &device, 1, 0, first.0);
    let unknown = CompletionFault::UnknownCommand { cid: first.0 };
    assert_eq!(polled, Err(fault(unknown)));
}

/// The device fills its queue with completions of the right phase, lap after lap.
#[test]
fn a_storm_of_completions_ends() {
    let (memory, device, mut driver) = machine();
    let id = driver.submit(Command::flush()).unwrap();
    let (base, entries) = device.0.borrow().io_completions();
    for entry in 0..u64::from(entries) {
        let dword3 = u32::from(id.0) | 1 << 16;
        memory.write(base + 16 * entry + 8, &[0, 0, 1, 0]);
        memory.write(base + 16 * entry + 12, &dword3.to_le_bytes());
    }
    let mut done = Vec::new();
    let again = fault(CompletionFault::UnknownCommand { cid: id.0 });
    assert_eq!(driver.poll(&mut done), Err(again));
    assert_eq!(done, [(id, Ok(()))]);
}

/// Completions with the phase tag of the lap before are not there yet.
#[test]
fn a_wrong_phase_is_no_completion() {
    let (memory, device, mut driver) = machine();
    let id = driver.submit(Command::flush()).unwrap();
    let (base, _) = device.0.borrow().io_completions();
    memory.write(base + 8, &[0, 0, 1, 0]);
    memory.write(base + 12, &u32::from(id.0).to_le_bytes());
    let mut done = Vec::new();
    assert_eq!(driver.poll(&mut done), Ok(()));
    assert!(done.is_empty());
    memory.write(base + 14, &[1]);
    assert_eq!(driver.poll(&mut done), Ok(()));
    assert_eq!(done, [(id, Ok(()))]);
}

/// Registers of which nothing can be relied on.
#[derive(Debug)]
struct Noise {
    cap: u64,
    csts: Option<u32>,
    random: Cell<u64>,
}

impl Noise {
    fn next(&self) -> u64 {
        let mut x = self.random.get() | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

impl Registers for Noise {
    fn read32(&self, offset: u64) -> u32 {
        check(offset, 4);
        match self.csts {
            Some(csts) if offset == 0x1c => csts,
            _ => self.next() as u32,
        }
    }
    fn write32(&self, offset: u64, _: u32) {
        check(offset, 4);
    }
    fn read64(&self, offset: u64) -> u64 {
        check(offset, 8);
        self.cap
    }
    fn write64(&self, offset: u64, _: u64) {
        check(offset, 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_registers_do_harm(
        cap in any::<u64>(),
        // Half of them get past the checks of CAP.
        sane in any::<bool>(),
        csts in proptest::option::of(any::<u32>()),
        random in any::<u64>(),
    ) {
        let cap = if sane { cap & !(0xf << 48 | 0xf << 32) | 1 << 37 | 1 } else { cap };
        let memory = Memory::default();
        let mut dma = Allocator { memory: memory.clone(), left: 100 };
        let noise = Noise { cap, csts, random: Cell::new(random) };
        // Nothing ever completes a command, so that none of them gets to be used.
        let started = Controller::new(noise, BAR_BYTES, &mut dma, Ticking::default());
        prop_assert!(started.is_err());
        prop_assert_eq!(memory.given_back(), 0);
    }

    #[test]
    fn no_answer_to_identify_does_harm(
        seed in any::<u64>(),
        kept in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let memory = Memory::default();
        let mut device = Simulated::new(&memory, 8, 9, 16, 0);
        let noise = Noise { cap: 0, csts: None, random: Cell::new(seed) };
        // Some dwords that count keep their value, or too few answers would get further.
        for (index, kept) in kept.iter().enumerate() {
            let dword = [0, 1, 2, 6, 19, 32, 33, 34, 128, 129][index % 10] * 4;
            let page = match index / 10 {
                0 => &mut device.identify_controller,
                1 => &mut device.identify_namespace,
                _ => &mut device.active_namespaces,
            };
            if !kept {
                page[dword..dword + 4].copy_from_slice(&(noise.next() as u32).to_le_bytes());
            }
        }
        if let Ok(driver) = device.share().start() {
            let namespace = driver.namespace();
            let block_bytes = u64::from(namespace.block_bytes);
            prop_assert!((1..=9).contains(&namespace.nsid));
            prop_assert!((512..=65536).contains(&block_bytes) && block_bytes.is_power_of_two());
            prop_assert!(namespace.blocks.checked_mul(block_bytes).is_some_and(|all| all > 0));
            let max = driver.max_transfer();
            prop_assert!(max >= block_bytes && max.is_multiple_of(block_bytes));
            prop_assert!(max <= 65536 * block_bytes);
        }
    }

    /// Any bytes in the completion queue: each look ends, and no more commands end than began.
    #[test]
    fn no_completion_queue_does_harm(
        writes in proptest::collection::vec(
            (0..128_u64, any::<u32>(), 0..4_u8, any::<bool>()), 1..100
        ),
    ) {
        let (memory, device, mut driver) = machine();
        let (base, _) = device.0.borrow().io_completions();
        let (mut begun, mut last) = (0_usize, 0_u16);
        let mut done = Vec::new();
        for (at, value, kind, look) in writes {
            match kind {
                0 => memory.write(base + at / 4 * 4, &value.to_le_bytes()),
                1 => {
                    if let Ok(CommandId(cid)) = driver.submit(Command::flush()) {
                        (begun, last) = (begun + 1, cid);
                    }
                }
                // Almost right ones, so that some are taken.
                _ => {
                    let entry = base + at / 16 * 16;
                    memory.write(entry + 8, &[0, 0, 1, 0]);
                    let dword3 = u32::from(last) | value & 0xffff_0000;
                    memory.write(entry + 12, &dword3.to_le_bytes());
                }
            }
            if look {
                let _ = driver.poll(&mut done);
            }
        }
        let flying = usize::from(driver.in_flight());
        prop_assert_eq!(done.len() + flying, begun);
    }
}
