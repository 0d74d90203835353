// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the device gets its commands, and says that they are done.

use address::Hpa;
use guarded_nvme::spec::admin::ABORT;
use guarded_nvme::spec::{Completion, Entry, Status};

use super::Inner;

const HALF: usize = 4;

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Halves are being fetched.
    Fetching,
    /// It can begin.
    Fetched,
    /// It has begun; its list is read later.
    Begun,
    /// It is done, with this status and result.
    Done(Status, u32),
    /// It waits for an event, or is gone.
    Completed,
}

/// An entry from when its fetch begins until it is reported as consumed and completed.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub place: u16,
    halves: [Option<[u64; HALF]>; 2],
    pub progress: Progress,
    is_reported: bool,
}

impl Slot {
    /// The command as it was fetched.
    pub fn entry(&self) -> Entry {
        let [first, second] = self.halves.map(|half| half.expect("both halves"));
        let [a, b, c, d] = first;
        let [e, f, g, h] = second;
        Entry::new([a, b, c, d, e, f, g, h])
    }
}

/// A submission queue of the device's.
#[derive(Clone, Debug)]
pub(super) struct SubmissionQueue {
    base: Hpa,
    size: u16,
    pub completion_queue: u16,
    tail: u16,
    /// The next entry whose fetch begins.
    next: u16,
    /// SQHD as it was last reported.
    reported: u16,
    pub slots: Vec<Slot>,
}

impl SubmissionQueue {
    pub fn new(base: Hpa, size: u16, completion_queue: u16) -> Self {
        Self {
            base,
            size,
            completion_queue,
            tail: 0,
            next: 0,
            reported: 0,
            slots: Vec::new(),
        }
    }

    pub fn ring(&mut self, tail: u16) {
        assert!(tail < self.size, "tail {tail} of {}", self.size);
        let out = (tail + self.size - self.reported) % self.size;
        let old = (self.tail + self.size - self.reported) % self.size;
        assert!(
            out >= old,
            "the tail goes over entries that may still be read"
        );
        self.tail = tail;
    }

    /// Commands that are not completed, of those that it was told of.
    pub fn outstanding(&self) -> usize {
        let begun = self.slots.iter();
        let open = begun
            .filter(|slot| slot.progress != Progress::Completed)
            .count();
        open + usize::from((self.tail + self.size - self.next) % self.size)
    }

    /// The entry after the last that was fetched whole, in order: all before it may be reported.
    fn fetched(&self) -> u16 {
        let mut head = self.reported;
        while head != self.next {
            let slot = self
                .slots
                .iter()
                .find(|slot| slot.place == head && !slot.is_reported);
            match slot {
                Some(slot) if slot.progress != Progress::Fetching => head = (head + 1) % self.size,
                _ => break,
            }
        }
        head
    }

    fn report(&mut self, head: u16) {
        while self.reported != head {
            let place = self.reported;
            for slot in &mut self.slots {
                slot.is_reported |= slot.place == place;
            }
            self.reported = (place + 1) % self.size;
        }
        let is_over = |slot: &Slot| slot.is_reported && slot.progress == Progress::Completed;
        self.slots.retain(|slot| !is_over(slot));
    }
}

/// A completion queue of the device's.
#[derive(Clone, Debug)]
pub(super) struct CompletionQueue {
    base: Hpa,
    size: u16,
    head: u16,
    tail: u16,
    phase: bool,
    /// The second word of an entry whose first parts are written.
    half: Option<u64>,
}

impl CompletionQueue {
    pub fn new(base: Hpa, size: u16) -> Self {
        Self {
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            half: None,
        }
    }

    pub fn ring(&mut self, head: u16) {
        assert!(head < self.size, "head {head} of {}", self.size);
        self.head = head;
    }

    fn is_full(&self) -> bool {
        (self.tail + 1) % self.size == self.head
    }
}

/// One thing that can be done.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// Begin to fetch the next entry.
    Begin(u16),
    /// Fetch a half, for the first time or again.
    Fetch(u16, usize),
    /// Begin a command, or go on with it.
    Execute(u16, usize),
    /// Post its completion.
    Complete(u16, usize),
    /// Write the last part of a completion.
    Finish(u16),
}

impl Inner {
    /// One step of any command of any queue.
    pub(super) fn queue_step(&mut self) -> bool {
        let moves = self.moves();
        if moves.is_empty() {
            return false;
        }
        let choice = if self.is_orderly {
            0
        } else {
            self.random.below(moves.len())
        };
        match moves[choice] {
            Move::Begin(queue) => self.begin(queue),
            Move::Fetch(queue, place) => self.fetch(queue, place),
            Move::Execute(queue, place) => self.execute(queue, place),
            Move::Complete(queue, place) => self.complete(queue, place),
            Move::Finish(queue) => self.finish(queue),
        }
        true
    }

    /// All that can be done; what ends a command comes first.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let halves = self
            .completion
            .iter()
            .filter(|(_, queue)| queue.half.is_some());
        moves.extend(halves.map(|(id, _)| Move::Finish(*id)));
        for (id, queue) in &self.submission {
            let target = &self.completion[&queue.completion_queue];
            let can_post = !target.is_full() && target.half.is_none();
            for (place, slot) in queue.slots.iter().enumerate() {
                moves.extend(match slot.progress {
                    Progress::Fetching => Some(Move::Fetch(*id, place)),
                    Progress::Fetched | Progress::Begun if self.is_held(*id, slot) => None,
                    Progress::Fetched | Progress::Begun => Some(Move::Execute(*id, place)),
                    Progress::Done(..) if can_post => Some(Move::Complete(*id, place)),
                    Progress::Done(..) | Progress::Completed => None,
                });
                let may_again = slot.progress == Progress::Fetched && !slot.is_reported;
                if may_again && !self.is_orderly {
                    moves.push(Move::Fetch(*id, place));
                }
            }
            if queue.next != queue.tail {
                moves.push(Move::Begin(*id));
            }
        }
        moves
    }

    /// Whether a test keeps the device from executing a command.
    fn is_held(&self, queue: u16, slot: &Slot) -> bool {
        match queue {
            0 => self.misbehaviour.holds_aborts && slot.entry().opcode() == ABORT,
            _ => self.misbehaviour.holds_io,
        }
    }

    fn begin(&mut self, queue: u16) {
        let queue = self.submission.get_mut(&queue).expect("a queue");
        queue.slots.push(Slot {
            place: queue.next,
            halves: [None; 2],
            progress: Progress::Fetching,
            is_reported: false,
        });
        queue.next = (queue.next + 1) % queue.size;
    }

    /// Reads a half of an entry; the first, or again, by chance.
    fn fetch(&mut self, queue: u16, place: usize) {
        let random = self.random.below(2);
        let queue = self.submission.get_mut(&queue).expect("a queue");
        let slot = &mut queue.slots[place];
        let half = match slot.halves {
            [None, None] | [Some(_), Some(_)] => random,
            [None, _] => 0,
            [_, None] => 1,
        };
        let first = queue.base + u64::from(slot.place) * 64 + half as u64 * 32;
        self.physical.check_monitor(first, "a fetch of an entry");
        let words = [0, 8, 16, 24].map(|at| self.physical.load(first + at).expect("memory"));
        slot.halves[half] = Some(words);
        if slot.halves.iter().all(Option::is_some) {
            slot.progress = Progress::Fetched;
        }
    }

    fn execute(&mut self, id: u16, place: usize) {
        let slot = &self.submission[&id].slots[place];
        let (entry, progress) = (slot.entry(), slot.progress);
        let next = match progress {
            Progress::Fetched if self.random.one_in(2) => Progress::Begun,
            _ if id == 0 => self.admin(&entry),
            _ => self.io(&entry),
        };
        if next != Progress::Begun {
            let count = self.executed.entry((id == 0, entry.opcode())).or_default();
            *count += 1;
        }
        let queue = self.submission.get_mut(&id);
        if let Some(slot) = queue.and_then(|queue| queue.slots.get_mut(place)) {
            slot.progress = next;
        }
    }

    /// Reports as consumed what may be, or less.
    fn complete(&mut self, id: u16, place: usize) {
        let queue = self.submission.get_mut(&id).expect("a queue");
        let slot = &mut queue.slots[place];
        let Progress::Done(status, result) = slot.progress else {
            return;
        };
        slot.progress = Progress::Completed;
        let cid = slot.entry().cid();
        let most = (queue.fetched() + queue.size - queue.reported) % queue.size;
        // It reports the rest with its last completion, or no host could go on.
        let step = match self.is_orderly || queue.outstanding() == 0 {
            true => most,
            false => u16::try_from(self.random.below(usize::from(most) + 1)).expect("small"),
        };
        let head = (queue.reported + step) % queue.size;
        queue.report(head);
        let target = queue.completion_queue;
        let completion = Completion {
            result,
            sq_head: head,
            sq: id,
            cid,
            status,
        };
        *self.posted.entry(id).or_default() += 1;
        let phase = self.completion[&target].phase;
        self.post(target, completion.words(phase));
    }

    /// Writes all but the phase tag; another step writes that.
    fn post(&mut self, id: u16, [first, second]: [u64; 2]) {
        let queue = self.completion.get_mut(&id).expect("a queue");
        let at = queue.base + u64::from(queue.tail) * 16;
        self.physical.check_monitor(at, "a completion");
        let old = self.physical.load(at + 8).expect("memory");
        self.physical.store(at, first);
        let low = second & 0xffff_ffff | old & !0xffff_ffff;
        self.physical.store(at + 8, low);
        queue.half = Some(second);
        if self.is_orderly {
            self.finish(id);
        }
    }

    fn finish(&mut self, id: u16) {
        let queue = self.completion.get_mut(&id).expect("a queue");
        let Some(second) = queue.half.take() else {
            return;
        };
        let at = queue.base + u64::from(queue.tail) * 16;
        self.physical.check_monitor(at, "a completion");
        self.physical.store(at + 8, second);
        queue.tail = (queue.tail + 1) % queue.size;
        queue.phase ^= queue.tail == 0;
    }

    /// A completion of nothing.
    pub(super) fn forge(&mut self, id: u16, [first, second]: [u64; 2]) {
        let Some(queue) = self.completion.get(&id) else {
            return;
        };
        let phase = u64::from(queue.phase) << 48;
        self.post(id, [first, second & !(1 << 48) | phase]);
        self.finish(id);
    }

    /// Completes the oldest event request.
    pub(super) fn report(&mut self, result: u32) -> bool {
        if self.events.is_empty() {
            return false;
        }
        let cid = self.events.remove(0);
        let Some(queue) = self.submission.get_mut(&0) else {
            return false;
        };
        let waits =
            |slot: &&mut Slot| slot.progress == Progress::Completed && slot.entry().cid() == cid;
        if let Some(slot) = queue.slots.iter_mut().find(waits) {
            slot.progress = Progress::Done(Status::SUCCESS, result);
            return true;
        }
        // Its entry has been reported long ago.
        let mut slot = Slot {
            place: u16::MAX,
            halves: [Some([0; HALF]); 2],
            progress: Progress::Done(Status::SUCCESS, result),
            is_reported: true,
        };
        slot.halves[0] = Some([0xc | u64::from(cid) << 16, 0, 0, 0]);
        queue.slots.push(slot);
        true
    }
}
