// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The commands of a guest that does anything.

use guarded_nvme::spec::PAGE;

use super::{Guest, PAGES, QUEUES};

impl Guest<'_> {
    pub(super) fn page(&mut self) -> u64 {
        match self.input.byte() {
            0..200 => (24 + self.input.word64() % 40) * PAGE,
            200..240 => self.input.word64() % (PAGES + 4) * PAGE,
            _ => self.input.word64(),
        }
    }

    fn words(&mut self, opcode: u8) -> [u64; 8] {
        let nsid = u64::from(
            self.input
                .choose(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 9, 0, u32::MAX]),
        );
        let cid = u64::from(self.input.byte() % 8);
        let flags = if self.input.byte() < 250 {
            0
        } else {
            u64::from(self.input.byte())
        };
        let first = self.page() + self.input.choose(&[0, 0, 0, 512, 4, 1]);
        let second = match self.input.byte() {
            0..120 => self.page(),
            _ => 10 * PAGE + u64::from(self.input.below(4 * 512)) * 8,
        };
        let noise = self.input.word64();
        let head = u64::from(opcode) | flags << 8 | cid << 16 | nsid << 32;
        [head, noise, noise, first, second, noise, noise, noise]
    }

    pub(super) fn io_command(&mut self) {
        let opcode = match self.input.byte() {
            0..160 => self.input.choose(&[1, 2]),
            160..230 => self.input.choose(&[5, 9, 9, 8, 0, 0xc]),
            _ => self.input.choose(&[4, 0x19, 0x79, 0x7a, 0x80, 0x0d]),
        };
        let mut words = self.words(opcode);
        words[6] = words[6] & !0xffff | self.input.choose(&[0, 7, 7, 15, 31, 63, 0xffff]);
        let queue = 1 + u16::from(self.input.byte()) % QUEUES;
        self.put(queue, words);
    }

    pub(super) fn admin_command(&mut self) {
        let opcode = self
            .input
            .choose(&[2, 6, 6, 8, 9, 0xa, 0xc, 0x7c, 0x80, 0x10, 0x45, 0xc0]);
        let mut words = self.words(opcode);
        let low = match opcode {
            6 => self.input.choose(&[0, 1, 2, 3, 5, 6, 8, 0x13, 0x1c, 7]),
            2 => self
                .input
                .choose(&[0x3ff_0001, 0x7f_0002, 4, 0x1fff_0005, 0x7_0007, 0x12]),
            8 => u64::from(self.input.byte() % 5) | u64::from(self.input.byte() % 8) << 16,
            9 | 0xa => self
                .input
                .choose(&[1, 6, 7, 8, 9, 0xb, 0xd, 0xe, 0x16, 0x81, 0x84, 3]),
            _ => words[5] & 0xffff_ffff,
        };
        words[5] = words[5] & !0xffff_ffff | low;
        if self.input.byte() < 128 {
            words[5] &= 0xffff_ffff;
            words[6] = 0;
            words[7] = 0;
        }
        self.put(0, words);
    }

    /// A command and an Abort that names it, while the device has it.
    pub(super) fn abort(&mut self) {
        let queue = 1 + u16::from(self.input.byte()) % QUEUES;
        let cid = u64::from(self.input.byte());
        let page = 24 * PAGE;
        self.put(queue, [2 | cid << 16 | 2 << 32, 0, 0, page, 0, 0, 0, 0]);
        self.rig.service();
        self.put(0, [8, 0, 0, 0, 0, u64::from(queue) | cid << 16, 0, 0]);
        self.rig.service();
    }
}
