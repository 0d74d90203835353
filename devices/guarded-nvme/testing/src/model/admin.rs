// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Admin commands: those that the monitor may send. All their data is in the monitor's memory.

use address::Hpa;
use guarded_nvme::guest::Access;
use guarded_nvme::spec::{Cdw, Entry, Status};

use super::Inner;
use super::queues::{CompletionQueue, Progress, SubmissionQueue};

impl Inner {
    pub(super) fn admin(&mut self, entry: &Entry) -> Progress {
        assert!(entry.is_plain(), "{entry:?}");
        let done = |status| Progress::Done(status, 0);
        match entry.opcode() {
            0 => done(self.delete_submission(entry)),
            1 => done(self.create_submission(entry)),
            2 => done(self.log_page(entry)),
            4 => done(self.delete_completion(entry)),
            5 => done(self.create_completion(entry)),
            6 => done(self.identify(entry)),
            8 => self.abort(entry),
            9 => self.set_features(entry),
            0xa => self.get_features(entry),
            0xc => {
                self.events.push(entry.cid());
                Progress::Completed
            }
            0x18 => done(Status::SUCCESS),
            _ => panic!("an admin command that is not allowed: {entry:?}"),
        }
    }

    /// Writes to the monitor's memory only.
    fn answer(&self, entry: &Entry, data: &[u8]) {
        self.check_own(entry, data.len() as u64);
        self.scatter(entry, data);
    }

    fn check_own(&self, entry: &Entry, bytes: u64) {
        self.physical.check_monitor(Hpa(entry.prp1()), "admin data");
        if bytes > 4096 {
            self.physical.check_monitor(Hpa(entry.prp2()), "admin data");
        }
    }

    fn id(entry: &Entry) -> (u16, u16) {
        (entry.low(Cdw::D10), entry.high(Cdw::D10) + 1)
    }

    fn create_completion(&mut self, entry: &Entry) -> Status {
        let (id, size) = Self::id(entry);
        assert_eq!(entry.cdw(Cdw::D11) & 3, 3, "contiguous, with interrupts");
        self.check_ring(entry, u64::from(size) * 16);
        if id == 0 || self.completion.contains_key(&id) {
            return Status::INVALID_QUEUE_ID;
        }
        let base = Hpa(entry.prp1());
        self.completion.insert(id, CompletionQueue::new(base, size));
        Status::SUCCESS
    }

    fn create_submission(&mut self, entry: &Entry) -> Status {
        let (id, size) = Self::id(entry);
        assert_eq!(entry.cdw(Cdw::D11) & 0xffff, 1, "contiguous");
        self.check_ring(entry, u64::from(size) * 64);
        if id == 0 || self.submission.contains_key(&id) {
            return Status::INVALID_QUEUE_ID;
        }
        let target = entry.high(Cdw::D11);
        if !self.completion.contains_key(&target) {
            return Status::INVALID_COMPLETION_QUEUE;
        }
        let base = Hpa(entry.prp1());
        self.submission
            .insert(id, SubmissionQueue::new(base, size, target));
        Status::SUCCESS
    }

    /// A queue is contiguous memory of the monitor's.
    fn check_ring(&self, entry: &Entry, bytes: u64) {
        assert_eq!(entry.prp1() % 4096, 0);
        for page in 0..bytes.div_ceil(4096) {
            self.physical
                .check_monitor(Hpa(entry.prp1() + page * 4096), "a queue");
        }
    }

    fn delete_submission(&mut self, entry: &Entry) -> Status {
        match self.submission.remove(&entry.low(Cdw::D10)) {
            Some(_) => Status::SUCCESS,
            None => Status::INVALID_QUEUE_ID,
        }
    }

    fn delete_completion(&mut self, entry: &Entry) -> Status {
        let id = entry.low(Cdw::D10);
        if self
            .submission
            .values()
            .any(|queue| queue.completion_queue == id)
        {
            return Status::INVALID_QUEUE_DELETION;
        }
        match self.completion.remove(&id) {
            Some(_) => Status::SUCCESS,
            None => Status::INVALID_QUEUE_ID,
        }
    }

    fn identify(&mut self, entry: &Entry) -> Status {
        let page = match entry.cdw(Cdw::D10) & 0xff {
            0 => match self.namespace(entry.nsid()) {
                Some(namespace) => self.identify_namespace(namespace),
                None => return Status::INVALID_NAMESPACE,
            },
            1 => self.identify_controller(),
            2 => self.active_namespaces(entry.nsid()),
            3 => match self.namespace(entry.nsid()) {
                Some(namespace) => Self::descriptors(namespace),
                None => return Status::INVALID_NAMESPACE,
            },
            5 | 6 | 8 => [0xff; 4096],
            0x13 => match self.controllers() {
                Some(page) => page,
                None => return Status::INVALID_FIELD,
            },
            other => panic!("a structure that is not allowed: {other:#x}"),
        };
        self.answer(entry, &page);
        Status::SUCCESS
    }

    fn log_page(&mut self, entry: &Entry) -> Status {
        let dwords = u64::from(entry.high(Cdw::D10)) | u64::from(entry.low(Cdw::D11)) << 16;
        let bytes = usize::try_from((dwords + 1) * 4).expect("a length");
        let page = entry.cdw(Cdw::D10) & 0xff;
        assert!(bytes <= 128 << 10, "{bytes} bytes of a log page");
        let mut data = vec![self.personality.fill; bytes];
        match page {
            4 => {
                data.fill(0);
                for (place, id) in data.chunks_exact_mut(4).zip(&self.changed) {
                    place.copy_from_slice(&id.to_le_bytes());
                }
                self.changed.clear();
            }
            0..=3 | 5 | 6 | 9 | 0x12 | 0x16 => {}
            _ => panic!("a log page that is not allowed: {page:#x}"),
        }
        self.answer(entry, &data);
        Status::SUCCESS
    }

    fn abort(&mut self, entry: &Entry) -> Progress {
        let (queue, cid) = (entry.low(Cdw::D10), entry.high(Cdw::D10));
        assert!(
            !self.events.contains(&cid) || queue != 0,
            "an event request"
        );
        let aborted = Status::from_field(7 << 1);
        let slots = self.submission.get_mut(&queue);
        let found = slots.and_then(|queue| {
            queue
                .slots
                .iter_mut()
                .find(|slot| slot.progress == Progress::Fetched && slot.entry().cid() == cid)
        });
        match found {
            Some(slot) if slot.entry().opcode() != 8 => {
                slot.progress = Progress::Done(aborted, 0);
                Progress::Done(Status::SUCCESS, 0)
            }
            _ => Progress::Done(Status::SUCCESS, 1),
        }
    }

    /// Bytes of a feature's data.
    fn feature_bytes(entry: &Entry) -> u64 {
        match entry.cdw(Cdw::D10) & 0xff {
            0xe => 8,
            0x16 => 512,
            0x81 if entry.cdw(Cdw::D11) & 1 != 0 => 16,
            0x81 => 8,
            _ => 0,
        }
    }

    fn set_features(&mut self, entry: &Entry) -> Progress {
        let feature = entry.cdw(Cdw::D10).to_le_bytes()[0];
        assert_ne!(feature, 0xd, "a host memory buffer");
        let bytes = Self::feature_bytes(entry);
        if bytes > 0 {
            self.check_own(entry, bytes);
            let data = self.gather(entry, bytes);
            self.feature_data.insert(feature, data);
        } else {
            assert_eq!(
                [entry.prp1(), entry.prp2()],
                [0, 0],
                "{feature:#x} has no data"
            );
        }
        self.features.insert(feature, entry.cdw(Cdw::D11));
        let last = u32::from(self.personality.queues - 1);
        let result = if feature == 7 { last | last << 16 } else { 0 };
        Progress::Done(Status::SUCCESS, result)
    }

    fn get_features(&mut self, entry: &Entry) -> Progress {
        let feature = entry.cdw(Cdw::D10).to_le_bytes()[0];
        let select = entry.cdw(Cdw::D10) >> 8 & 7;
        let bytes = if select == 3 {
            0
        } else {
            Self::feature_bytes(entry)
        };
        if bytes > 0 {
            let data = vec![0x5a; usize::try_from(bytes).expect("few")];
            self.check_own(entry, bytes);
            self.physical
                .check(Hpa(entry.prp1()), Access::Write, "a feature");
            self.scatter(entry, &data);
        }
        let value = self.features.get(&feature).copied();
        Progress::Done(Status::SUCCESS, value.unwrap_or(0))
    }
}
