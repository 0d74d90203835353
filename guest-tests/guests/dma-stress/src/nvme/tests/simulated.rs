// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A controller in software: a controller by the specification, read from its side. What a driver
//! must not do is an assertion.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use super::machine::{Allocator, Buffer, Memory, Ticking};
use super::pieces::pieces;
use crate::nvme::{Controller, NvmeError};
use crate::registers::Registers;

/// The driver on this machine.
pub(super) type Driver = Controller<Handle, Buffer, Ticking>;

/// Size of BAR0.
pub(super) const BAR_BYTES: u64 = 0x4000;

/// Success.
pub(super) const OK: u16 = 0;
/// Status code types and codes: SCT in bits 10:8, SC in bits 7:0.
pub(super) const LBA_OUT_OF_RANGE: u16 = 0x080;
const INVALID_FIELD: u16 = 0x002;
const INVALID_NAMESPACE: u16 = 0x00b;

/// How it departs from the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quirk {
    #[default]
    None,
    /// CSTS.RDY never becomes 1.
    NeverReady,
    /// CSTS.RDY never goes back to 0.
    NeverDisabled,
    /// Admin commands with this opcode are never completed.
    Silent(u8),
    /// Admin commands with this opcode fail with this status.
    Fails(u8, u16),
    /// A fatal error at the first admin command.
    Fatal,
    /// A fatal error instead of CSTS.RDY.
    FatalAtEnable,
    /// Shutdown is never complete.
    NeverShutDown,
    /// Every register reads as all ones after so many reads.
    GoneAfter(u32),
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    base: u64,
    entries: u16,
    head: u16,
    tail: u16,
    phase: bool,
}

/// A completion, as a device writes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    /// The queue of the command that it is for.
    pub sqid: u16,
    /// How far that queue was read.
    pub head: u16,
    /// The command that it is for.
    pub cid: u32,
    pub status: u16,
}

/// The controller.
#[derive(Debug)]
pub(super) struct Simulated {
    memory: Memory,
    pub(super) cap: u64,
    pub(super) version: u32,
    pub(super) quirk: Quirk,
    pub(super) identify_controller: Vec<u8>,
    pub(super) active_namespaces: Vec<u8>,
    pub(super) identify_namespace: Vec<u8>,
    pub(super) disk: Vec<u8>,
    block_bytes: usize,
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    pub(super) cmb: (u32, u32),
    pub(super) cmbmsc: u64,
    submissions: BTreeMap<u16, Queue>,
    completions: BTreeMap<u16, Queue>,
    /// Fetched and not completed.
    pub(super) fetched: Vec<[u32; 16]>,
    /// The vector that the I/O completion queue was created with.
    pub(super) vector: Option<u32>,
    pub(super) shut_down: bool,
    reads: u32,
}

impl Simulated {
    /// A controller of version 1.4 for queues of `entries` entries, with one namespace of
    /// `blocks` blocks of `2^lbads` bytes, and transfers of up to `4096 << mdts` bytes.
    pub(super) fn new(memory: &Memory, entries: u16, lbads: u8, blocks: u32, mdts: u8) -> Self {
        let mut controller = std::vec![0; 4096];
        controller[77] = mdts;
        controller[512] = 0x66;
        controller[513] = 0x44;
        controller[516..520].copy_from_slice(&9_u32.to_le_bytes());
        let mut active = std::vec![0; 4096];
        active[..8].copy_from_slice(&[3, 0, 0, 0, 7, 0, 0, 0]);
        let mut namespace = std::vec![0; 4096];
        namespace[..4].copy_from_slice(&blocks.to_le_bytes());
        namespace[25] = 2; // three formats
        namespace[26] = 1; // the second is in use
        namespace[128 + 2] = 30;
        namespace[132 + 2] = lbads;
        let stride = 1_u64; // doorbells 8 bytes apart
        Self {
            memory: memory.clone(),
            // MQES, TO = 1 s, DSTRD, CSS = NVM
            cap: u64::from(entries - 1) | 2 << 24 | stride << 32 | 1 << 37,
            version: 0x0001_0400,
            quirk: Quirk::None,
            identify_controller: controller,
            active_namespaces: active,
            identify_namespace: namespace,
            disk: std::vec![0; (blocks as usize) << lbads],
            block_bytes: 1 << lbads,
            cc: 0,
            csts: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            cmb: (0, 0),
            cmbmsc: 0,
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            fetched: Vec::new(),
            vector: None,
            shut_down: false,
            reads: 0,
        }
    }

    /// Puts it into a machine.
    pub(super) fn share(self) -> Handle {
        Handle(Rc::new(RefCell::new(self)))
    }

    /// Leaves it in the state of another driver: enabled, and with this CSTS.
    pub(super) fn leave_enabled(&mut self, csts: u32) {
        self.cc = 0x0046_0001;
        self.csts = csts;
    }

    /// CC.EN.
    pub(super) fn is_enabled(&self) -> bool {
        self.cc & 1 != 0
    }

    fn set_cc(&mut self, value: u32) {
        let (was, is) = (self.cc & 1, value & 1);
        if was == 0 && is == 1 {
            assert_eq!(self.csts & 1, 0, "enabled while CSTS.RDY is 1");
            assert_eq!(value >> 7 & 0xf, 0, "memory pages of 4 KiB");
            assert_eq!(value >> 16 & 0xff, 0x46, "entry sizes");
            assert_eq!(value >> 14 & 3, 0, "SHN");
            let admin = |base: u64, entries: u32| {
                assert_eq!(base & 0xfff, 0);
                let entries = (entries & 0xfff) as u16 + 1;
                assert!(entries >= 2);
                Queue {
                    base,
                    entries,
                    phase: true,
                    ..Queue::default()
                }
            };
            self.submissions.insert(0, admin(self.asq, self.aqa));
            self.completions.insert(0, admin(self.acq, self.aqa >> 16));
            match self.quirk {
                Quirk::NeverReady => {}
                Quirk::FatalAtEnable => self.csts |= 2,
                _ => self.csts |= 1,
            }
        } else if was == 1 && is == 0 {
            self.submissions.clear();
            self.completions.clear();
            self.fetched.clear();
            if self.quirk != Quirk::NeverDisabled {
                self.csts = 0;
            }
        } else if value >> 14 & 3 == 1 && self.quirk != Quirk::NeverShutDown {
            assert_eq!(self.submissions.len(), 1, "I/O queues at shutdown");
            self.csts = self.csts & !0xc | 0x8;
            self.shut_down = true;
        }
        self.cc = value;
    }

    fn doorbell(&mut self, offset: u64, value: u32) {
        let stride = 4 << (self.cap >> 32 & 0xf);
        assert_eq!((offset - 0x1000) % stride, 0, "no doorbell at {offset:#x}");
        let index = (offset - 0x1000) / stride;
        let (queue, value) = ((index / 2) as u16, u16::try_from(value).unwrap());
        if index % 2 == 1 {
            let completions = self.completions.get_mut(&queue).expect("a queue");
            assert!(value < completions.entries);
            completions.head = value;
            return;
        }
        let mut submissions = *self.submissions.get(&queue).expect("a queue");
        assert!(value < submissions.entries);
        while submissions.head != value {
            let mut entry = [0; 64];
            self.memory.read(
                submissions.base + 64 * u64::from(submissions.head),
                &mut entry,
            );
            submissions.head = (submissions.head + 1) % submissions.entries;
            self.submissions.insert(queue, submissions);
            let entry: [u32; 16] = std::array::from_fn(|i| {
                u32::from_le_bytes(entry[4 * i..][..4].try_into().unwrap())
            });
            assert_eq!(entry[0] & 0xff00, 0, "fused or with SGLs");
            if queue == 0 {
                self.admin(&entry);
            } else {
                let cid = entry[0] >> 16;
                assert!(
                    self.fetched.iter().all(|other| other[0] >> 16 != cid),
                    "command ID conflict"
                );
                self.fetched.push(entry);
            }
        }
    }

    fn admin(&mut self, entry: &[u32; 16]) {
        let opcode = (entry[0] & 0xff) as u8;
        let status = match self.quirk {
            Quirk::Silent(silent) if silent == opcode => return,
            Quirk::Fails(fails, status) if fails == opcode => status,
            Quirk::Fatal => {
                self.csts |= 2;
                return;
            }
            _ => self.run_admin(opcode, entry),
        };
        self.post(0, 0, entry[0] >> 16, status);
    }

    fn run_admin(&mut self, opcode: u8, entry: &[u32; 16]) -> u16 {
        let prp1 = u64::from(entry[7]) << 32 | u64::from(entry[6]);
        let id = (entry[10] & 0xffff) as u16;
        let queue = Queue {
            base: prp1,
            entries: (entry[10] >> 16) as u16 + 1,
            phase: true,
            ..Queue::default()
        };
        match opcode {
            0x00 => {
                assert!(self.submissions.remove(&id).is_some());
                self.fetched.clear();
            }
            0x04 => {
                assert!(!self.submissions.contains_key(&id), "still used");
                assert!(self.completions.remove(&id).is_some());
            }
            0x01 | 0x05 => {
                assert_eq!((prp1 & 0xfff, id, entry[11] & 1), (0, 1, 1));
                assert!(queue.entries >= 2);
                assert!(u64::from(queue.entries - 1) <= self.cap & 0xffff, "MQES");
                if opcode == 5 {
                    assert_eq!(entry[11] & 2, 2, "interrupts");
                    self.vector = Some(entry[11] >> 16);
                    self.completions.insert(id, queue);
                } else {
                    assert_eq!(entry[11] >> 16, 1, "the completion queue");
                    assert!(self.completions.contains_key(&1));
                    self.submissions.insert(id, queue);
                }
            }
            0x06 => {
                let answer = match (entry[10], entry[1]) {
                    (0, 1..=9) => &self.identify_namespace,
                    (0, _) => return INVALID_NAMESPACE,
                    (1, 0) => &self.identify_controller,
                    (2, 0) if self.version >= 0x0001_0100 => &self.active_namespaces,
                    _ => return INVALID_FIELD,
                };
                self.memory.write(prp1, answer);
            }
            0x09 => assert_eq!((entry[10], entry[11]), (7, 0)),
            _ => return 0x001,
        }
        OK
    }

    /// Runs the I/O command that was fetched as the `index`th of those that are left, if there
    /// is one, and posts its completion.
    pub(super) fn complete(&mut self, index: usize) {
        if index < self.fetched.len() {
            let entry = self.fetched.remove(index);
            let status = self.run_io(&entry);
            self.post(1, 1, entry[0] >> 16, status);
        }
    }

    fn run_io(&mut self, entry: &[u32; 16]) -> u16 {
        assert_eq!(entry[1], 3, "NSID");
        assert_eq!(entry[2..6], [0; 4], "reserved and MPTR");
        let opcode = entry[0] & 0xff;
        if opcode == 0 {
            assert_eq!(entry[6..], [0; 10]);
            return OK;
        }
        assert_eq!(entry[13..], [0; 3]);
        assert_eq!(entry[12] >> 16, 0);
        let quad = |low: usize| u64::from(entry[low + 1]) << 32 | u64::from(entry[low]);
        let bytes = ((entry[12] & 0xffff) as usize + 1) * self.block_bytes;
        let start = quad(10).saturating_mul(self.block_bytes as u64);
        let Some(end) = usize::try_from(start)
            .ok()
            .and_then(|start| start.checked_add(bytes))
            .filter(|end| *end <= self.disk.len())
        else {
            return LBA_OUT_OF_RANGE;
        };
        let pieces = match pieces(&self.memory, quad(6), quad(8), bytes) {
            Ok(pieces) => pieces,
            Err(status) => return status,
        };
        let mut disk = &mut self.disk[end - bytes..end];
        for (address, len) in pieces {
            let (here, rest) = disk.split_at_mut(len);
            match opcode {
                1 => self.memory.read(address, here),
                2 => self.memory.write(address, here),
                _ => return 0x001,
            }
            disk = rest;
        }
        OK
    }

    /// Posts a completion for command `cid` of queue `sqid`.
    pub(super) fn post(&mut self, queue: u16, sqid: u16, cid: u32, status: u16) {
        let head = self.submissions[&queue].head;
        let posted = Posted {
            sqid,
            head,
            cid,
            status,
        };
        self.post_raw(queue, posted);
    }

    /// Puts `posted` into the completion queue of pair `queue`.
    pub(super) fn post_raw(&mut self, queue: u16, posted: Posted) {
        let Posted {
            sqid,
            head,
            cid,
            status,
        } = posted;
        let completions = self.completions.get_mut(&queue).expect("a queue");
        let next = (completions.tail + 1) % completions.entries;
        assert_ne!(next, completions.head, "completion queue {queue} overflows");
        let dword3 = cid | u32::from(completions.phase) << 16 | u32::from(status) << 17;
        let mut entry = [0; 16];
        entry[8..10].copy_from_slice(&head.to_le_bytes());
        entry[10..12].copy_from_slice(&sqid.to_le_bytes());
        entry[12..].copy_from_slice(&dword3.to_le_bytes());
        let address = completions.base + 16 * u64::from(completions.tail);
        completions.tail = next;
        completions.phase ^= next == 0;
        self.memory.write(address, &entry);
    }

    /// Where the I/O completion queue lies, and how many entries it has.
    pub(super) fn io_completions(&self) -> (u64, u16) {
        let queue = &self.completions[&1];
        (queue.base, queue.entries)
    }
}

/// The controller as the driver and the test both hold it.
#[derive(Clone, Debug)]
pub(super) struct Handle(pub(super) Rc<RefCell<Simulated>>);

impl Handle {
    /// Starts a driver with memory enough.
    pub(super) fn start(&self) -> Result<Driver, NvmeError> {
        self.start_with(100)
    }

    /// Starts a driver with `pages` pages of memory.
    pub(super) fn start_with(&self, pages: usize) -> Result<Driver, NvmeError> {
        let memory = self.0.borrow().memory.clone();
        let mut dma = Allocator {
            memory,
            left: pages,
        };
        Controller::new(self.clone(), BAR_BYTES, &mut dma, Ticking::default())
    }

    fn read(&self, offset: u64, width: u64) -> u64 {
        check(offset, width);
        let mut device = self.0.borrow_mut();
        device.reads += 1;
        if matches!(device.quirk, Quirk::GoneAfter(reads) if device.reads > reads) {
            return u64::MAX;
        }
        let cmb_on = device.cap >> 57 & 1 == 0 || device.cmbmsc & 1 != 0;
        match offset {
            0x00 => device.cap,
            0x08 => device.version.into(),
            0x14 => device.cc.into(),
            0x1c => device.csts.into(),
            0x38 if cmb_on => device.cmb.0.into(),
            0x3c if cmb_on => device.cmb.1.into(),
            0x38 | 0x3c => 0,
            // CBAI: the simulated one does not like the upper half of the address space.
            0x58 => u64::from(device.cmbmsc & 2 != 0 && device.cmbmsc >> 63 != 0),
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write(&self, offset: u64, width: u64, value: u64) {
        check(offset, width);
        let mut device = self.0.borrow_mut();
        let low = value as u32;
        match (offset, width) {
            (0x14, 4) => device.set_cc(low),
            (0x24, 4) => device.aqa = low,
            (0x28, 8) => device.asq = value,
            (0x30, 8) => device.acq = value,
            (0x50, 8) => {
                assert_eq!(device.cap >> 57 & 1, 1, "CMBMSC is reserved");
                device.cmbmsc = value;
            }
            (0x1000.., 4) => device.doorbell(offset, low),
            _ => panic!("write of {width} bytes to {offset:#x}"),
        }
    }
}

/// What every access has to keep to.
pub(super) fn check(offset: u64, width: u64) {
    assert!(offset.is_multiple_of(width));
    assert!(offset + width <= BAR_BYTES, "{offset:#x} is not in BAR0");
}

impl Registers for Handle {
    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, 4) as u32
    }
    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, 4, value.into());
    }
    fn read64(&self, offset: u64) -> u64 {
        self.read(offset, 8)
    }
    fn write64(&self, offset: u64, value: u64) {
        self.write(offset, 8, value);
    }
}
