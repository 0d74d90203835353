// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A controller that does all that hardware may do.
//!
//! It fetches an entry in two halves, late, and again; it reads a list when other commands have come and gone; it executes
//! and completes in any order, writes a completion in parts, and reports an old SQ Head Pointer. It checks no limit. A
//! command that was disabled away may still run until RDY is 0. What each address is for is checked against the owner of
//! its page: entries, lists and queues have to be in the monitor's memory, and data there or in the guest's.

mod admin;
mod data;
mod identify;
mod personality;
mod queues;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use address::Hpa;
use guarded_nvme::device::{Device, DeviceError, Shape};
use guarded_nvme::guest::{Doorbell, Side};
use guarded_nvme::spec::registers::{
    ACQ, AQA, ASQ, CAP, CC, CMBMSC, CRTO, CSTS, PMRCTL, PMRMSCL, PMRMSCU, VS,
};

use crate::memory::{ModelBlock, Physical};
use crate::random::Random;

pub use personality::{ModelNamespace, Personality};
use queues::{CompletionQueue, SubmissionQueue};

/// What a test makes the device do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Misbehaviour {
    /// It never becomes ready.
    pub never_ready: bool,
    /// It never stops.
    pub never_stops: bool,
    /// It cannot be reset.
    pub no_reset: bool,
    /// CSTS.CFS.
    pub fatal: bool,
    /// Its registers read as all ones.
    pub gone: bool,
    /// It does not execute commands.
    pub silent: bool,
    /// It fetches I/O commands, and does not execute them.
    pub holds_io: bool,
    /// It fetches Abort commands, and does not execute them.
    pub holds_aborts: bool,
}

#[derive(Debug)]
struct Inner {
    physical: Physical,
    personality: Personality,
    random: Random,
    /// Whether it takes no freedoms: entries at once, in order.
    is_orderly: bool,
    misbehaviour: Misbehaviour,
    registers: BTreeMap<u32, u32>,
    is_ready: bool,
    is_bus_master: bool,
    submission: BTreeMap<u16, SubmissionQueue>,
    completion: BTreeMap<u16, CompletionQueue>,
    events: Vec<u16>,
    features: BTreeMap<u8, u32>,
    blocks: BTreeMap<(u32, u64), Vec<u8>>,
    changed: Vec<u32>,
    executed: BTreeMap<(bool, u8), u64>,
    posted: BTreeMap<u16, u64>,
    feature_data: BTreeMap<u8, Vec<u8>>,
    resets: u64,
}

/// The device and its test's end of it. Copies are the same device.
#[derive(Clone, Debug)]
pub struct Model(Rc<RefCell<Inner>>);

/// The device as the monitor has it.
#[derive(Debug)]
pub struct ModelDevice(Model);

impl Model {
    /// A device at power-on.
    #[must_use]
    pub fn new(physical: Physical, personality: Personality, seed: u64) -> Self {
        let inner = Inner {
            physical,
            personality,
            random: Random::new(seed),
            is_orderly: false,
            misbehaviour: Misbehaviour::default(),
            registers: BTreeMap::new(),
            is_ready: false,
            is_bus_master: false,
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            events: Vec::new(),
            features: BTreeMap::new(),
            blocks: BTreeMap::new(),
            changed: Vec::new(),
            executed: BTreeMap::new(),
            posted: BTreeMap::new(),
            feature_data: BTreeMap::new(),
            resets: 0,
        };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// The monitor's end.
    #[must_use]
    pub fn device(&self) -> ModelDevice {
        ModelDevice(self.clone())
    }

    /// Whether the device takes no freedoms.
    pub fn set_orderly(&self, is_orderly: bool) {
        self.0.borrow_mut().is_orderly = is_orderly;
    }

    /// What the device does from now on.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.0.borrow_mut().misbehaviour = misbehaviour;
    }

    /// Changes a namespace behind the monitor's back, and reports it.
    pub fn change_namespace(&self, namespace: ModelNamespace) {
        self.0.borrow_mut().change_namespace(namespace);
    }

    /// Reports an event, if there is a request for one.
    pub fn report(&self, result: u32) -> bool {
        self.0.borrow_mut().report(result)
    }

    /// Posts a completion that belongs to nothing.
    pub fn forge_completion(&self, queue: u16, words: [u64; 2]) {
        self.0.borrow_mut().forge(queue, words);
    }

    /// One step, of any queue. Returns whether there was any.
    pub fn step(&self) -> bool {
        self.0.borrow_mut().step()
    }

    /// So many steps.
    pub fn steps(&self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// A register as it was last written.
    #[must_use]
    pub fn register(&self, offset: u32) -> u32 {
        let inner = self.0.borrow();
        inner.registers.get(&offset).copied().unwrap_or(0)
    }

    /// Sets a register as firmware may have left it.
    pub fn set_register(&self, offset: u32, value: u32) {
        self.0.borrow_mut().registers.insert(offset, value);
    }

    /// Whether it may do DMA.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.0.borrow().is_bus_master
    }

    /// How many commands of an opcode were executed: admin commands or I/O commands.
    #[must_use]
    pub fn executed(&self, is_admin: bool, opcode: u8) -> u64 {
        let inner = self.0.borrow();
        inner
            .executed
            .get(&(is_admin, opcode))
            .copied()
            .unwrap_or(0)
    }

    /// How many completions it has posted for a submission queue.
    #[must_use]
    pub fn posted(&self, queue: u16) -> u64 {
        self.0.borrow().posted.get(&queue).copied().unwrap_or(0)
    }

    /// How many commands it was given on a submission queue and has not completed.
    #[must_use]
    pub fn outstanding(&self, queue: u16) -> usize {
        let inner = self.0.borrow();
        inner
            .submission
            .get(&queue)
            .map_or(0, SubmissionQueue::outstanding)
    }

    /// The data with which a feature was last set.
    #[must_use]
    pub fn feature_data(&self, feature: u8) -> Vec<u8> {
        let inner = self.0.borrow();
        inner
            .feature_data
            .get(&feature)
            .cloned()
            .unwrap_or_default()
    }

    /// How often it was reset.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.0.borrow().resets
    }

    /// I/O submission queues that it has.
    #[must_use]
    pub fn submission_queues(&self) -> Vec<u16> {
        let inner = self.0.borrow();
        inner
            .submission
            .keys()
            .copied()
            .filter(|id| *id > 0)
            .collect()
    }

    /// A logical block.
    #[must_use]
    pub fn block(&self, nsid: u32, lba: u64) -> Option<Vec<u8>> {
        self.0.borrow().blocks.get(&(nsid, lba)).cloned()
    }
}

impl Inner {
    fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn address(&self, offset: u32) -> Hpa {
        let (low, high) = (self.register(offset), self.register(offset + 4));
        Hpa(u64::from(low) | u64::from(high) << 32)
    }

    fn is_enabled(&self) -> bool {
        self.register(CC) & 1 != 0
    }

    fn read(&self, offset: u32) -> u32 {
        if self.misbehaviour.gone {
            return u32::MAX;
        }
        let cap = self.personality.cap().to_le_bytes();
        let [a, b, c, d, e, f, g, h] = cap;
        match offset {
            CAP => u32::from_le_bytes([a, b, c, d]),
            4 => u32::from_le_bytes([e, f, g, h]),
            VS => self.personality.version,
            CSTS => self.status(),
            CRTO => 20,
            _ => self.register(offset),
        }
    }

    fn status(&self) -> u32 {
        let shutdown = self.register(CC) >> 14 & 3;
        let shutdown = if shutdown == 0 { 0 } else { 2 << 2 };
        u32::from(self.is_ready) | u32::from(self.misbehaviour.fatal) << 1 | shutdown
    }

    fn write(&mut self, offset: u32, value: u32) {
        let known = [CC, AQA, ASQ, ASQ + 4, ACQ, ACQ + 4, CMBMSC, CMBMSC + 4];
        let is_known = known.contains(&offset) || [PMRCTL, PMRMSCL, PMRMSCU].contains(&offset);
        assert!(is_known, "a store of {value:#x} to {offset:#x}");
        let was_enabled = self.is_enabled();
        self.registers.insert(offset, value);
        if offset == CC && !was_enabled && self.is_enabled() {
            self.enable();
        }
    }

    fn enable(&mut self) {
        assert!(!self.is_ready, "enabled before it had stopped");
        assert_eq!(self.register(CC), 0x0046_0001, "CC");
        let sizes = self.register(AQA);
        let (submission, completion) = (sizes & 0xfff, sizes >> 16 & 0xfff);
        let size = |last: u32| u16::try_from(last + 1).expect("12 bits");
        self.physical.set_running(true);
        let base = self.address(ASQ);
        self.submission
            .insert(0, SubmissionQueue::new(base, size(submission), 0));
        let base = self.address(ACQ);
        self.completion
            .insert(0, CompletionQueue::new(base, size(completion)));
    }

    /// What is outstanding is over.
    fn forget(&mut self) {
        self.submission.clear();
        self.completion.clear();
        self.events.clear();
        self.is_ready = false;
        self.physical.set_running(false);
    }

    fn ring(&mut self, doorbell: Doorbell, value: u16) {
        match doorbell.side {
            Side::Submission => {
                let queue = self.submission.get_mut(&doorbell.queue);
                queue.expect("a doorbell of a submission queue").ring(value);
            }
            Side::Completion => {
                let queue = self.completion.get_mut(&doorbell.queue);
                queue.expect("a doorbell of a completion queue").ring(value);
            }
        }
    }

    fn step(&mut self) -> bool {
        if self.misbehaviour.gone {
            return false;
        }
        if !self.is_enabled() {
            return self.stop();
        }
        if !self.is_ready {
            self.is_ready = !self.misbehaviour.never_ready && self.freely(3);
            return true;
        }
        self.work()
    }

    /// Disabled: commands may run on until RDY is 0.
    fn stop(&mut self) -> bool {
        if !self.is_ready {
            return false;
        }
        if !self.misbehaviour.never_stops && self.freely(4) {
            self.forget();
            return true;
        }
        self.work()
    }

    /// Once in `times`; always, if it takes no freedoms.
    fn freely(&mut self, times: usize) -> bool {
        self.is_orderly || self.random.one_in(times)
    }

    fn work(&mut self) -> bool {
        if self.misbehaviour.silent || !self.is_bus_master {
            return false;
        }
        self.queue_step()
    }
}

impl Device for ModelDevice {
    type Block = ModelBlock;

    fn read(&self, offset: u32) -> u32 {
        self.0.0.borrow().read(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        self.0.0.borrow_mut().write(offset, value);
    }

    fn ring(&self, doorbell: Doorbell, value: u16) {
        self.0.0.borrow_mut().ring(doorbell, value);
    }

    fn allocate(&mut self, pages: usize, shape: Shape) -> Option<ModelBlock> {
        let physical = self.0.0.borrow().physical.clone();
        physical.block(pages, shape == Shape::Contiguous)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        self.0.0.borrow_mut().is_bus_master = on;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        let mut inner = self.0.0.borrow_mut();
        if inner.misbehaviour.no_reset {
            return Err(DeviceError("the model was told not to reset".into()));
        }
        inner.forget();
        inner.resets += 1;
        for register in [CC, AQA, ASQ, ASQ + 4, ACQ, ACQ + 4] {
            inner.registers.remove(&register);
        }
        Ok(())
    }
}
