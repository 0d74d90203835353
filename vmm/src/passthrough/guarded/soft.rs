// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A small NVMe controller in software, for tests: it does what it is told at once, and reaches memory by physical
//! addresses alone.

#![expect(
    clippy::cast_possible_truncation,
    reason = "fields of commands and registers are parts of words"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use address::BusAddr;
use guarded_nvme::device::{Device, DeviceError, Shape};
use guarded_nvme::guest::{Doorbell, Side};
use guarded_nvme::spec::registers::{ACQ, AQA, ASQ, CAP, CC, CSTS, VS};
use software_memory::{BusAddress, DmaPort};
use vmm_sys_util::eventfd::EventFd;

use super::pages::{Pool, PoolBlock};

const BLOCK: usize = 512;
/// MQES 1023, CQR, TO 5 s, the NVM command set.
const CAPABILITIES: u64 = 1023 | 1 << 16 | 10 << 24 | 1 << 37;
const INVALID_FIELD: u16 = 2;
const INVALID_OPCODE: u16 = 1;

#[derive(Debug, Default)]
struct Queue {
    base: u64,
    size: u16,
    /// Next entry to read or to write.
    at: u16,
    phase: bool,
    /// Of a submission queue its completion queue, of that its vector.
    target: u16,
}

impl Queue {
    fn advance(&mut self) {
        self.at = (self.at + 1) % self.size;
        self.phase ^= self.at == 0;
    }
}

#[derive(Debug)]
pub struct Soft {
    port: DmaPort,
    pool: Arc<Pool>,
    events: Arc<[EventFd]>,
    registers: BTreeMap<u32, u32>,
    submission: BTreeMap<u16, Queue>,
    completion: BTreeMap<u16, Queue>,
    pub disk: Vec<u8>,
    pub is_master: bool,
    pub resets: u32,
}

/// The device; copies are the same.
#[derive(Clone, Debug)]
pub struct SoftDevice(Arc<Mutex<Soft>>);

impl SoftDevice {
    /// A device with a namespace that has `disk`.
    pub fn new(port: DmaPort, pool: Arc<Pool>, events: Arc<[EventFd]>, disk: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Soft {
            port,
            pool,
            events,
            registers: BTreeMap::new(),
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            disk,
            is_master: false,
            resets: 0,
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, Soft> {
        self.0.lock().unwrap()
    }
}

impl Device for SoftDevice {
    type Block = PoolBlock;

    fn read(&self, offset: u32) -> u32 {
        let soft = self.state();
        match offset {
            CAP => CAPABILITIES as u32,
            0x04 => (CAPABILITIES >> 32) as u32,
            VS => 0x1_0400,
            _ => soft.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    fn write(&self, offset: u32, value: u32) {
        let mut soft = self.state();
        let old = soft.registers.insert(offset, value).unwrap_or(0);
        if offset == CC {
            soft.configure(old, value);
        }
    }

    fn ring(&self, doorbell: Doorbell, value: u16) {
        if doorbell.side == Side::Submission {
            self.state().work(doorbell.queue, value);
        }
    }

    fn allocate(&mut self, pages: usize, shape: Shape) -> Option<PoolBlock> {
        let pool = Arc::clone(&self.state().pool);
        pool.allocate(pages, shape)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        self.state().is_master = on;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        let mut soft = self.state();
        soft.resets += 1;
        soft.is_master = false;
        soft.registers.clear();
        soft.submission.clear();
        soft.completion.clear();
        Ok(())
    }
}

impl Soft {
    fn configure(&mut self, old: u32, value: u32) {
        let shut_down = if value >> 14 & 3 == 0 { 0 } else { 2 << 2 };
        self.registers.insert(CSTS, value & 1 | shut_down);
        if old & 1 == value & 1 {
            return;
        }
        self.submission.clear();
        self.completion.clear();
        if value & 1 != 0 {
            let register = |at| u64::from(self.registers.get(&at).copied().unwrap_or(0));
            let wide = |at| register(at) | register(at + 4) << 32;
            let sizes = register(AQA);
            let size = |sizes: u64| u16::try_from(sizes & 0xfff).unwrap() + 1;
            let submission = queue(wide(ASQ), size(sizes), 0);
            let completion = queue(wide(ACQ), size(sizes >> 16), 0);
            self.submission.insert(0, submission);
            self.completion.insert(0, completion);
        }
    }

    fn work(&mut self, id: u16, tail: u16) {
        assert!(self.is_master, "a doorbell without bus mastering");
        loop {
            let Some(queue) = self.submission.get_mut(&id).filter(|q| q.at != tail) else {
                return;
            };
            let at = queue.base + u64::from(queue.at) * 64;
            queue.advance();
            let (head, target) = (queue.at, queue.target);
            let mut bytes = [0; 64];
            self.get(at, &mut bytes);
            let words: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .collect();
            let done = match id {
                0 => self.admin(&words),
                _ => Some(self.io(&words)),
            };
            if let Some((status, result)) = done {
                let cid = words[0] >> 16 & 0xffff;
                let second = u64::from(head) | u64::from(id) << 16 | cid << 32;
                self.complete(target, [result.into(), second | u64::from(status) << 49]);
            }
        }
    }

    fn complete(&mut self, id: u16, words: [u64; 2]) {
        let queue = self.completion.get_mut(&id).unwrap();
        let (at, phase) = (queue.base + u64::from(queue.at) * 16, queue.phase);
        let vector = queue.target;
        queue.advance();
        self.put(at, &words[0].to_le_bytes());
        let second = words[1] | u64::from(phase) << 48;
        self.put(at + 8, &second.to_le_bytes());
        self.events[usize::from(vector)].write(1).unwrap();
    }

    /// Status and result; `None` for a command that stays open.
    fn admin(&mut self, words: &[u64]) -> Option<(u16, u32)> {
        let (low, high) = (words[5] as u32, (words[5] >> 32) as u32);
        let (id, size) = (low as u16, ((low >> 16) as u16).wrapping_add(1));
        match words[0] as u8 {
            0 => drop(self.submission.remove(&id)),
            4 => drop(self.completion.remove(&id)),
            1 => drop(
                self.submission
                    .insert(id, queue(words[3], size, (high >> 16) as u16)),
            ),
            5 => drop(
                self.completion
                    .insert(id, queue(words[3], size, (high >> 16) as u16)),
            ),
            2 | 0x18 => {}
            6 => {
                let Some(page) = self.identify(low as u8) else {
                    return Some((INVALID_FIELD, 0));
                };
                self.put(words[3], &page);
            }
            8 => return Some((0, 1)),
            9 | 10 if low as u8 == 7 => return Some((0, 0x0003_0003)),
            9 | 10 => {}
            12 => return None,
            _ => return Some((INVALID_OPCODE, 0)),
        }
        Some((0, 0))
    }

    fn identify(&self, structure: u8) -> Option<[u8; 4096]> {
        let mut page = [0; 4096];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        match structure {
            0 => {
                let blocks = (self.disk.len() / BLOCK) as u64;
                for at in [0, 8, 16] {
                    put(at, &blocks.to_le_bytes());
                }
                put(130, &[9]);
            }
            1 => {
                put(4, b"SOFT                ");
                put(24, b"Software NVMe                           ");
                put(77, &[5]);
                put(80, &0x1_0400_u32.to_le_bytes());
                put(111, &[1]);
                put(512, &[0x66, 0x44]);
                put(516, &[1]);
                // Discard and write zeroes, and a volatile write cache.
                put(520, &[0xc]);
                put(525, &[1]);
                put(768, b"nqn.2014-08.org.nvmexpress:uuid:soft");
            }
            2 => put(0, &[1]),
            3 => put(0, &[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
            _ => return None,
        }
        Some(page)
    }

    fn io(&mut self, words: &[u64]) -> (u16, u32) {
        let opcode = words[0] as u8;
        let start = usize::try_from(words[5]).unwrap() * BLOCK;
        let bytes = (usize::from(words[6] as u16) + 1) * BLOCK;
        match opcode {
            0 | 9 => {}
            8 => self.disk[start..start + bytes].fill(0),
            1 | 2 => {
                let mut done = 0;
                for (at, len) in self.pieces(words[3], words[4], bytes) {
                    let range = start + done..start + done + len;
                    if opcode == 1 {
                        let mut data = vec![0; len];
                        self.get(at, &mut data);
                        self.disk[range].copy_from_slice(&data);
                    } else {
                        let data = self.disk[range].to_vec();
                        self.put(at, &data);
                    }
                    done += len;
                }
            }
            _ => return (INVALID_OPCODE, 0),
        }
        (0, 0)
    }

    fn pieces(&self, first: u64, second: u64, bytes: usize) -> Vec<(u64, usize)> {
        let rest = 4096 - usize::try_from(first % 4096).unwrap();
        let mut pieces = vec![(first, bytes.min(rest))];
        let mut left = bytes - pieces[0].1;
        let is_list = left > 4096;
        let mut place = 0;
        while left > 0 {
            let mut word = second.to_le_bytes();
            if is_list {
                self.get(second + 8 * place, &mut word);
            }
            pieces.push((u64::from_le_bytes(word), left.min(4096)));
            left -= left.min(4096);
            place += 1;
        }
        pieces
    }

    fn get(&self, at: u64, data: &mut [u8]) {
        let address = BusAddress::Bus(BusAddr(at));
        self.port.read(address, data).unwrap();
    }

    fn put(&self, at: u64, data: &[u8]) {
        let address = BusAddress::Bus(BusAddr(at));
        self.port.write(address, data).unwrap();
    }
}

fn queue(base: u64, size: u16, target: u16) -> Queue {
    Queue {
        base,
        size,
        at: 0,
        phase: true,
        target,
    }
}
