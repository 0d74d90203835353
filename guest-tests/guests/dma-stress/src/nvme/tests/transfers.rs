// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data through the whole driver: every byte of the disk, of the buffers, and around them.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::machine::{Buffer, Memory, POISON};
use super::simulated::{Driver, Handle, LBA_OUT_OF_RANGE, Simulated};
use crate::nvme::{
    Command, CommandId, Completion, Op, PAGE_BYTES, Prp, PrpBuilder, PrpList, SubmitError,
};

const BLOCKS: u32 = 96;

/// One step of a test.
#[derive(Clone, Debug)]
enum Step {
    Submit(Request),
    /// The device finishes the command fetched as this one of those that are left.
    Complete(usize),
    /// The driver looks.
    Poll,
}

/// A command to submit, and where its memory begins.
#[derive(Clone, Copy, Debug)]
struct Request {
    op: Op,
    lba: u32,
    blocks: u32,
    /// Offset of the data in its first page.
    offset: usize,
    /// Where in the pages for lists the list begins.
    list_page: usize,
    list_entry: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op = prop_oneof![4 => Just(Op::Read), 4 => Just(Op::Write), 1 => Just(Op::Flush)];
    let dword = prop_oneof![Just(0_u16), Just(1023), 0..1024_u16];
    let entry = prop_oneof![Just(0_u16), 508..512_u16, 0..512_u16];
    let submit = (op, 0..BLOCKS, 1..40_u32, dword, entry, 0..2_usize).prop_map(
        |(op, lba, blocks, dword, list_entry, list_page)| {
            Step::Submit(Request {
                op,
                lba,
                blocks,
                offset: usize::from(dword) * 4,
                list_page,
                list_entry: list_entry.into(),
            })
        },
    );
    let step = prop_oneof![
        3 => submit,
        3 => (0..64_usize).prop_map(Step::Complete),
        1 => Just(Step::Poll),
    ];
    proptest::collection::vec(step, 1..160)
}

impl Request {
    /// A command for the first block.
    fn first(op: Op) -> Self {
        Self {
            op,
            lba: 0,
            blocks: 1,
            offset: 0,
            list_page: 0,
            list_entry: 0,
        }
    }
}

/// A command in flight, and what its memory has to be.
struct Transfer {
    op: Op,
    start: usize,
    bytes: usize,
    offset: usize,
    data: Buffer,
    /// Every byte of the data's pages at submission.
    before: Vec<u8>,
    list: Buffer,
    list_before: Vec<u8>,
}

/// The driver, the device, and what the disk ought to hold.
struct Scene {
    memory: Memory,
    device: Handle,
    driver: Driver,
    disk: Vec<u8>,
    transfers: BTreeMap<CommandId, Transfer>,
    random: u64,
    finished: usize,
}

impl Scene {
    fn new(entries: u16, lbads: u8) -> Self {
        let memory = Memory::default();
        let device = Simulated::new(&memory, entries, lbads, BLOCKS, 0).share();
        let driver = device.start().expect("a driver");
        let disk = device.0.borrow().disk.clone();
        Self {
            memory,
            device,
            driver,
            disk,
            transfers: BTreeMap::new(),
            random: 1,
            finished: 0,
        }
    }

    fn random(&mut self, bytes: usize) -> Vec<u8> {
        (0..bytes)
            .map(|_| {
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1;
                (self.random >> 33) as u8
            })
            .collect()
    }

    fn submit(&mut self, request: Request) {
        let (command, transfer) = self.prepare(request);
        let full = self.transfers.len() == usize::from(self.driver.depth());
        match self.driver.submit(command) {
            Ok(id) => {
                assert!(!full, "more commands than the queue holds");
                assert!(
                    self.transfers.insert(id, transfer).is_none(),
                    "{id:?} twice"
                );
            }
            Err(SubmitError::Full { depth }) => {
                assert!(full && depth == self.driver.depth());
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(usize::from(self.driver.in_flight()), self.transfers.len());
    }

    /// Makes the memory of a command.
    fn prepare(&mut self, request: Request) -> (Command, Transfer) {
        let Request {
            op,
            lba,
            blocks,
            offset,
            list_page: first_page,
            list_entry: first_entry,
        } = request;
        let block_bytes = self.driver.namespace().block_bytes as usize;
        let blocks = match op {
            Op::Flush => 0,
            _ => blocks.min(BLOCKS - lba),
        };
        let (start, bytes) = (lba as usize * block_bytes, blocks as usize * block_bytes);
        // A page before and after the data is there to be left alone, as is what is around it.
        let data = self
            .memory
            .pages((offset + bytes).div_ceil(PAGE_BYTES) + 2, POISON);
        let list = self.memory.pages(first_page + 3, POISON);
        let prp = if op == Op::Flush {
            Prp::NONE
        } else {
            let list = PrpList {
                buffer: &list,
                first_page,
                first_entry,
            };
            PrpBuilder::new(&data.pages[1..], offset as u64, bytes as u64)
                .and_then(|builder| builder.build(&list))
                .expect("a data pointer")
        };
        if op == Op::Write {
            let random = self.random(bytes);
            data.set(PAGE_BYTES + offset, &random);
        }
        let command = Command {
            op,
            lba: if op == Op::Flush { 0 } else { lba.into() },
            blocks,
            prp,
        };
        let transfer = Transfer {
            op,
            start,
            bytes,
            offset: PAGE_BYTES + offset,
            before: data.bytes(),
            data,
            list_before: list.bytes(),
            list,
        };
        (command, transfer)
    }

    fn poll(&mut self) {
        let mut done: Vec<Completion> = Vec::new();
        self.driver.poll(&mut done).expect("no nonsense");
        for (id, result) in done {
            assert_eq!(result, Ok(()));
            let transfer = self.transfers.remove(&id).expect("one in flight");
            self.check(&transfer);
            self.finished += 1;
        }
    }

    /// Completions come in the order in which the device moved the data, so that `disk` is
    /// what it was at that moment.
    fn check(&mut self, transfer: &Transfer) {
        let disk = &mut self.disk[transfer.start..][..transfer.bytes];
        let data = transfer.offset..transfer.offset + transfer.bytes;
        let mut expected = transfer.before.clone();
        match transfer.op {
            Op::Read => expected[data].copy_from_slice(disk),
            Op::Write => disk.copy_from_slice(&expected[data]),
            Op::Flush => {}
        }
        assert!(transfer.data.bytes() == expected, "{:?}", transfer.op);
        assert!(transfer.list.bytes() == transfer.list_before);
    }

    fn complete(&mut self, index: usize) {
        self.device.0.borrow_mut().complete(index);
    }

    fn finish(mut self) -> usize {
        while !self.device.0.borrow().fetched.is_empty() {
            self.complete(0);
        }
        // A full queue's completions are taken in one go.
        self.poll();
        assert!(self.transfers.is_empty());
        assert_eq!(self.driver.in_flight(), 0);
        assert!(self.device.0.borrow().disk == self.disk);
        self.driver.shutdown().expect("a shutdown");
        assert_eq!(self.memory.in_use(), 0);
        self.finished
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_byte_goes_where_it_belongs(
        entries in prop_oneof![2..8_u16, 2..100_u16],
        lbads in 9..13_u8,
        steps in steps(),
    ) {
        let mut scene = Scene::new(entries, lbads);
        prop_assert_eq!(scene.driver.depth(), entries.min(64) - 1);
        for step in steps {
            match step {
                Step::Submit(request) => scene.submit(request),
                Step::Complete(index) => scene.complete(index),
                Step::Poll => scene.poll(),
            }
        }
        scene.finish();
    }
}

/// Runs the queues round many times, always full, in the order of the device's choice.
#[test]
fn full_queues_wrap_round() {
    for entries in [2, 3, 5, 64, 65, 4096] {
        let mut scene = Scene::new(entries, 9);
        let depth = usize::from(scene.driver.depth());
        for round in 0..12 {
            for _ in scene.transfers.len()..depth {
                let op = if round % 2 == 0 { Op::Write } else { Op::Read };
                scene.submit(Request {
                    lba: round * 7,
                    blocks: 9,
                    offset: 2048,
                    list_entry: 511,
                    ..Request::first(op)
                });
            }
            scene.submit(Request::first(Op::Flush)); // one too many
            for index in (0..depth).rev().step_by(1 + round as usize % 2) {
                scene.complete(index);
            }
            scene.poll();
        }
        assert!(
            scene.finish() >= 12 * depth.div_ceil(2),
            "{entries} entries"
        );
    }
}

/// A command identifier comes back only after many uses of its slot.
#[test]
fn identifiers_of_late_completions_are_not_in_use_again() {
    let mut scene = Scene::new(2, 9);
    let mut seen = Vec::new();
    for _ in 0..1000 {
        scene.submit(Request::first(Op::Read));
        seen.extend(scene.transfers.keys().copied());
        scene.complete(0);
        scene.poll();
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
    scene.finish();
}

/// The longest transfer: 1,500 pages in three list pages.
#[test]
fn lists_go_over_several_pages() {
    let memory = Memory::default();
    let device = Simulated::new(&memory, 64, 12, 1600, 11).share();
    let mut driver = device.start().unwrap();
    assert_eq!(driver.max_transfer(), 4096 << 11);
    let pages = 1500;
    let data = memory.pages(pages + 1, 1);
    let list = memory.pages(4, POISON);
    let builder = PrpBuilder::new(&data.pages, 12, pages as u64 * 4096).unwrap();
    assert_eq!(builder.list_pages(300), 4);
    let prp = builder.build(&PrpList {
        buffer: &list,
        first_page: 0,
        first_entry: 300,
    });
    let expected: Vec<u8> = (0..pages * 4096).map(|i| (i % 251) as u8).collect();
    device.0.borrow_mut().disk[4096..][..expected.len()].copy_from_slice(&expected);
    let id = driver
        .submit(Command::read(1, pages as u32, prp.unwrap()))
        .unwrap();
    device.0.borrow_mut().complete(0);
    let mut done = Vec::new();
    driver.poll(&mut done).unwrap();
    assert_eq!(done, [(id, Ok(()))]);
    let all = data.bytes();
    assert!(all[12..][..expected.len()] == expected);
    assert!(all[..12].iter().all(|byte| *byte == 1));
    assert!(all[12 + expected.len()..].iter().all(|byte| *byte == 1));
}

/// What the device refuses is reported with its status, and nothing else suffers.
#[test]
fn errors_of_commands_are_handed_on() {
    let memory = Memory::default();
    let device = Simulated::new(&memory, 8, 9, 16, 0).share();
    let mut driver = device.start().unwrap();
    let data = memory.pages(1, 0);
    let prp = PrpBuilder::new(&data.pages, 0, 512)
        .and_then(|builder| {
            builder.build(&PrpList {
                buffer: &data,
                first_page: 0,
                first_entry: 0,
            })
        })
        .unwrap();
    let beyond = driver.submit(Command::read(16, 1, prp)).unwrap();
    let far = driver.submit(Command::write(u64::MAX, 1, prp)).unwrap();
    let good = driver.submit(Command::write(15, 1, prp)).unwrap();
    for _ in 0..3 {
        device.0.borrow_mut().complete(0);
    }
    let mut done = Vec::new();
    driver.poll(&mut done).unwrap();
    let ids: Vec<_> = done.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [beyond, far, good]);
    for (_, result) in &done[..2] {
        let status = result.unwrap_err();
        assert_eq!(status.name(), Some("LBA Out of Range"));
        assert_eq!(
            (u16::from(status.code_type), u16::from(status.code)),
            (0, LBA_OUT_OF_RANGE)
        );
    }
    assert_eq!(done[2].1, Ok(()));
    assert_eq!(driver.check(), Ok(()));
}
