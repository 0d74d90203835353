// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's driver of the usual kind.

use address::Gpa;
use guarded_nvme::guest::Doorbell;
use guarded_nvme::spec::{Completion, Status};

use crate::Rig;

const PAGE: u64 = 4096;

/// A queue pair of the driver's.
#[derive(Clone, Copy, Debug)]
struct Pair {
    submission: Gpa,
    completion: Gpa,
    size: u16,
    tail: u16,
    head: u16,
    phase: bool,
}

/// An I/O command: opcode, namespace, first block, blocks, and its data's pages.
#[derive(Clone, Debug)]
pub struct Io {
    /// Opcode.
    pub opcode: u8,
    /// Namespace.
    pub nsid: u32,
    /// First block.
    pub lba: u64,
    /// Blocks.
    pub count: u16,
    /// Pages of data, and where in the first of them it begins.
    pub pages: Vec<Gpa>,
    /// Offset in the first.
    pub offset: u64,
}

/// A driver that uses memory from its page 16 on: queues, lists, and pages for data.
#[derive(Debug)]
pub struct Driver {
    pairs: Vec<Pair>,
    next_page: u64,
    next_cid: u16,
}

impl Driver {
    /// A driver that has not touched its device yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pairs: Vec::new(),
            next_page: 16,
            next_cid: 0x1000,
        }
    }

    /// A page that nothing else uses.
    pub fn page(&mut self) -> Gpa {
        self.pages(1)
    }

    /// Pages that nothing else uses, one behind the other.
    pub fn pages(&mut self, count: u64) -> Gpa {
        let first = self.next_page;
        self.next_page += count;
        Gpa(first * PAGE)
    }

    /// Where a submission queue is.
    #[must_use]
    pub fn queue_address(&self, queue: u16) -> Gpa {
        self.pairs[usize::from(queue)].submission
    }

    fn pair(&mut self, rig: &Rig, size: u16) -> Pair {
        let submission = self.pages((u64::from(size) * 64).div_ceil(PAGE));
        let completion = self.pages((u64::from(size) * 16).div_ceil(PAGE));
        for at in (0..u64::from(size) * 16).step_by(8) {
            rig.ram().put(completion + at, 0);
        }
        Pair {
            submission,
            completion,
            size,
            tail: 0,
            head: 0,
            phase: true,
        }
    }

    /// Enables the controller in the order of Linux, and waits for it.
    pub fn enable(&mut self, rig: &mut Rig) -> bool {
        self.enable_with(rig, 32)
    }

    /// The same with this number of entries of the admin queues.
    pub fn enable_with(&mut self, rig: &mut Rig, size: u16) -> bool {
        let admin = self.pair(rig, size);
        self.pairs = vec![admin];
        rig.configure(0);
        if !rig.run_until(|rig| !rig.is_ready()) {
            return false;
        }
        rig.set_admin_queues(admin.submission, admin.completion, size.into());
        rig.configure(0x0046_0000);
        rig.configure(0x0046_0001);
        rig.run_until(|rig| rig.is_ready() || rig.is_fatal()) && rig.is_ready()
    }

    /// Disables it, and waits.
    pub fn disable(&mut self, rig: &mut Rig) -> bool {
        rig.configure(0x0046_0000);
        rig.run_until(|rig| !rig.is_ready())
    }

    /// Puts a command on a queue, and returns its identifier.
    pub fn submit(&mut self, rig: &mut Rig, queue: u16, words: [u64; 8]) -> u16 {
        let cid = self.put(rig, queue, words);
        self.ring(rig, queue);
        cid
    }

    /// Writes a command, without the doorbell.
    pub fn put(&mut self, rig: &Rig, queue: u16, words: [u64; 8]) -> u16 {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(0x1001);
        let pair = &mut self.pairs[usize::from(queue)];
        let mut words = words;
        words[0] = words[0] & !0xffff_0000 | u64::from(cid) << 16;
        rig.ram()
            .put_all(pair.submission + u64::from(pair.tail) * 64, &words);
        pair.tail = (pair.tail + 1) % pair.size;
        cid
    }

    /// Writes a queue's submission doorbell.
    pub fn ring(&mut self, rig: &mut Rig, queue: u16) {
        let tail = self.pairs[usize::from(queue)].tail;
        rig.ring(Doorbell::tail(queue), tail);
    }

    /// The next completion of a queue, if there is one.
    pub fn poll(&mut self, rig: &mut Rig, queue: u16) -> Option<Completion> {
        let pair = &mut self.pairs[usize::from(queue)];
        let at = pair.completion + u64::from(pair.head) * 16;
        let second = rig.ram().get(at + 8);
        if Completion::phase(second) != pair.phase {
            return None;
        }
        pair.head = (pair.head + 1) % pair.size;
        pair.phase ^= pair.head == 0;
        let head = pair.head;
        rig.ring(Doorbell::head(queue), head);
        Some(Completion::from_words([rig.ram().get(at), second]))
    }

    /// Waits for the next completion of a queue.
    pub fn wait(&mut self, rig: &mut Rig, queue: u16) -> Option<Completion> {
        for _ in 0..2000 {
            if let Some(completion) = self.poll(rig, queue) {
                return Some(completion);
            }
            rig.run(1);
        }
        None
    }

    /// A command and its completion.
    ///
    /// # Panics
    ///
    /// If there is none, or another's.
    pub fn execute(&mut self, rig: &mut Rig, queue: u16, words: [u64; 8]) -> Completion {
        let cid = self.submit(rig, queue, words);
        let completion = self.wait(rig, queue).expect("a completion");
        assert_eq!((completion.cid, completion.sq), (cid, queue));
        completion
    }

    /// An admin command without data: opcode, CDW10, CDW11.
    pub fn admin(&mut self, rig: &mut Rig, opcode: u8, dwords: [u32; 2]) -> Completion {
        let dwords = u64::from(dwords[0]) | u64::from(dwords[1]) << 32;
        self.execute(rig, 0, [opcode.into(), 0, 0, 0, 0, dwords, 0, 0])
    }

    /// A structure of Identify.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn identify(&mut self, rig: &mut Rig, cns: u8, nsid: u32) -> Vec<u8> {
        let page = self.page();
        let command = [6 | u64::from(nsid) << 32, 0, 0, page.0, 0, cns.into(), 0, 0];
        let completion = self.execute(rig, 0, command);
        assert_eq!(completion.status, Status::SUCCESS, "CNS {cns:#x} of {nsid}");
        rig.ram().bytes(page, 4096)
    }

    /// Makes I/O queue pair `id`, the next one, of `size` entries and with vector `id`.
    pub fn create_queues(&mut self, rig: &mut Rig, id: u16, size: u16) -> Status {
        let pair = self.pair(rig, size);
        let shape = u64::from(id) | u64::from(size - 1) << 16;
        let interrupts = 3 | u64::from(id) << 16;
        let create = [
            5,
            0,
            0,
            pair.completion.0,
            0,
            shape | interrupts << 32,
            0,
            0,
        ];
        let status = self.execute(rig, 0, create).status;
        if status != Status::SUCCESS {
            return status;
        }
        let to = 1 | u64::from(id) << 16;
        let create = [1, 0, 0, pair.submission.0, 0, shape | to << 32, 0, 0];
        let status = self.execute(rig, 0, create).status;
        if status == Status::SUCCESS {
            self.pairs.truncate(id.into());
            self.pairs.push(pair);
        }
        status
    }

    /// The words of an I/O command. The list of its pages, if it needs one, is on a page of its own, at an odd offset.
    pub fn io(&mut self, rig: &Rig, io: &Io) -> [u64; 8] {
        let first = io.pages.first().map_or(0, |page| page.0 + io.offset);
        let second = match io.pages.as_slice() {
            [] | [_] => 0,
            [_, second] => second.0,
            [_, rest @ ..] => {
                let list = self.page() + 8 * (512 - rest.len().min(512) as u64);
                let words: Vec<u64> = rest.iter().map(|page| page.0).collect();
                rig.ram().put_all(list, &words);
                list.0
            }
        };
        let count = u64::from(io.count.wrapping_sub(1));
        let head = u64::from(io.opcode) | u64::from(io.nsid) << 32;
        [head, 0, 0, first, second, io.lba, count, 0]
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}
