// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices decoded from bytes. All profiles are correct; not all of them are acceptable.

use super::device::{
    Addresses, BESIDE_MSIX, Channel, Device, Direction, Field, Length, PLAIN, Quirk, Register,
    SPACE, Way,
};
use crate::input::Input;

/// A device.
pub(super) fn device(input: &mut Input<'_>) -> Device {
    let mut maker = Maker {
        registers: Vec::new(),
        next: 0x10,
        high: SPACE / 2,
        refusal: input.choose(&["drop", "drop", "all-ones", "stop"]),
        input,
    };
    let count = maker.input.choose(&[1, 1, 1, 2]);
    let channels = (0..count).map(|_| maker.channel()).collect();
    Device {
        bar: maker.input.choose(&[PLAIN, PLAIN, BESIDE_MSIX]),
        refusal: maker.refusal,
        resets: maker.one_in(2),
        stride: maker.input.choose(&[1, 4]),
        registers: maker.registers,
        channels,
    }
}

struct Maker<'a, 'b> {
    input: &'a mut Input<'b>,
    registers: Vec<Register>,
    next: u64,
    high: u64,
    refusal: &'static str,
}

impl Maker<'_, '_> {
    fn one_in(&mut self, count: u8) -> bool {
        self.input.byte() % count == count - 1
    }

    /// A separate register, in one piece or in several.
    fn register(&mut self, width: u64) -> usize {
        let mut register = Register {
            name: format!("r{}", self.registers.len()),
            offset: 0,
            width,
            high: None,
            high_first: false,
            store: width,
            replace: false,
            accesses: None,
            read_back: false,
            reserved: None,
            writable: None,
        };
        match self.input.byte() % 8 {
            0 | 1 if width > 1 => register.store = width / 2,
            2 if width > 2 => register.store = width / 4,
            3 | 4 if width > 1 => {
                register.store = width / 2;
                register.high = Some(self.high);
                register.high_first = self.one_in(2);
                self.high += 8;
            }
            5 => register.replace = true,
            6 if self.one_in(6) => {
                // Not to be accepted, if it is of more than one byte.
                register.replace = true;
                register.store = width.div_ceil(2);
            }
            _ => {}
        }
        if self.one_in(6) {
            let wide: Vec<_> = [1, 2, 4, 8]
                .into_iter()
                .filter(|_| !self.one_in(3))
                .collect();
            register.accesses = Some(wide);
        }
        // Some touch one another.
        self.next = self.next.next_multiple_of(width) + self.input.choose(&[0, 0, 8]);
        register.offset = self.next;
        self.next += width;
        self.registers.push(register);
        self.registers.len() - 1
    }

    fn bit(&mut self, free: u64) -> u64 {
        let bits: Vec<_> = (0..64)
            .map(|bit| 1 << bit)
            .filter(|bit| free & bit != 0)
            .collect();
        if bits.is_empty() {
            0
        } else {
            self.input.choose(&bits)
        }
    }

    /// Neighbouring bits of `free`.
    fn run(&mut self, free: u64) -> u64 {
        let first = self.bit(free);
        let most = self.input.choose(&[4, 13, 13, 16]);
        let mut run = first;
        for _ in 1..most {
            run |= run << 1 & free;
        }
        run
    }

    fn channel(&mut self) -> Channel {
        let width = self.input.choose(&[8, 8, 8, 4]);
        let first = self.register(width);
        let ends = self.one_in(2);
        let second = (ends || self.one_in(2)).then(|| self.register(width));
        let addresses = match second {
            Some(second) if ends => Addresses::Ends {
                source: first,
                destination: second,
            },
            device => Addresses::Sides {
                memory: first,
                device,
            },
        };
        for register in [Some(first), second].into_iter().flatten() {
            self.registers[register].read_back = self.one_in(4);
        }
        let start = self.start();
        let mut used = vec![0; self.registers.len() + 2];
        used[start.register] = start.mask;
        let direction = self.direction(ends, start.register, &mut used);
        let length = self.length(start.register, &mut used);
        let (busy, quirk) = self.busy(&start, &used);
        let status = (self.refusal == "all-ones" && self.one_in(2)).then(|| self.register(2));
        for (register, named) in used.iter().enumerate().skip(start.register) {
            let busy = busy.filter(|busy| busy.register == register);
            if *named == 0 && busy.is_some() || status == Some(register) {
                self.writable_status(register, busy, quirk);
            } else {
                self.others(register, named | busy.map_or(0, |busy| busy.mask));
            }
        }
        let bits = self.input.choose(&[28, 32, 40, 64]);
        Channel {
            addresses,
            direction,
            length,
            start,
            pass: self.one_in(3),
            busy,
            quirk,
            status,
            max_length: self.input.choose(&[0x1000, 0x1000, 0x2000, 0x100]),
            address_bits: bits.min(8 * width),
            alignment: self.input.choose(&[1, 1, 1, 4, 16]),
            boundary: self.input.choose(&[None, None, Some(0x1000), Some(0x2000)]),
        }
    }

    /// A register, and the bits of it that start a transfer.
    fn start(&mut self) -> Field {
        let width = self.input.choose(&[4, 4, 8, 2, 1]);
        let register = self.register(width);
        let all = self.registers[register].bits();
        let mask = match self.input.byte() % 8 {
            0 => 0,
            1 | 2 => self.bit(all) | self.bit(all),
            3 => self.bit(all & 0xff),
            _ => self.bit(all),
        };
        let value = if self.one_in(4) { 0 } else { mask };
        Field {
            register,
            mask,
            value,
        }
    }

    fn direction(&mut self, ends: bool, start: usize, used: &mut [u64]) -> Direction {
        let ways = [Way::ToMemory, Way::FromMemory, Way::Within];
        if self.one_in(3) {
            return Direction::Fixed(self.input.choose(if ends { &ways } else { &ways[..2] }));
        }
        let register = self.start_or_own(start);
        let free = self.registers[register].bits() & !used[register];
        let mask = self.bit(free) | self.bit(free);
        if mask == 0 {
            return Direction::Fixed(Way::ToMemory);
        }
        used[register] |= mask;
        let value = if self.one_in(3) { self.bit(mask) } else { mask };
        let field = Field {
            register,
            mask,
            value,
        };
        Direction::Field(field, 0)
    }

    fn length(&mut self, start: usize, used: &mut [u64]) -> Length {
        if self.one_in(8) {
            return Length::Fixed(self.input.choose(&[0x10, 0x100]));
        }
        let register = self.start_or_own(start);
        let free = self.registers[register].bits() & !used[register];
        let mask = self.run(free);
        if mask == 0 {
            return Length::Fixed(0x40);
        }
        used[register] |= mask;
        Length::Field {
            field: Field {
                register,
                mask,
                value: 0,
            },
            unit: self.input.choose(&[1, 1, 1, 4, 16]),
            bias: self.input.choose(&[0, 0, 1]),
        }
    }

    fn start_or_own(&mut self, start: usize) -> usize {
        if self.one_in(2) {
            return start;
        }
        let width = self.input.choose(&[4, 4, 8, 2]);
        self.register(width)
    }

    fn busy(&mut self, start: &Field, used: &[u64]) -> (Option<Field>, Quirk) {
        let quirks = [
            Quirk::ReadOnly,
            Quirk::OneClears,
            Quirk::Plain,
            Quirk::Order,
        ];
        let choice = self.input.byte() % 8;
        let quirk = self.input.choose(&quirks);
        let (register, mask) = match choice {
            0 => return (None, Quirk::ReadOnly),
            1 if start.mask != 0 => return (Some(*start), Quirk::ReadOnly),
            2 | 3 => {
                let free = self.registers[start.register].bits() & !used[start.register];
                (start.register, self.bit(free))
            }
            _ => {
                let width = self.input.choose(&[1, 2, 4, 8]);
                let register = self.register(width);
                let all = self.registers[register].bits();
                (register, self.bit(all) | self.bit(all))
            }
        };
        if mask == 0 {
            return (None, Quirk::ReadOnly);
        }
        let value = if self.one_in(4) { 0 } else { mask };
        let busy = Field {
            register,
            mask,
            value,
        };
        (Some(busy), quirk)
    }

    /// Which bits the guest may write of a register that reports whether a transfer is under way or
    /// was refused.
    fn writable_status(&mut self, register: usize, busy: Option<Field>, quirk: Quirk) {
        let Some(bits) = self.registers.get(register).map(Register::bits) else {
            return;
        };
        // A store of zeros must not change the bits that are not writable.
        let harmless = !matches!(quirk, Quirk::Plain) || busy.is_none();
        let free = bits & !busy.map_or(0, |busy| busy.mask);
        if harmless && self.one_in(2) {
            self.registers[register].writable = Some(self.bit(free));
        }
    }

    /// The profile's rule for bits of a register that are not `named` by a field.
    fn others(&mut self, register: usize, named: u64) {
        let Some(bits) = self.registers.get(register).map(Register::bits) else {
            return;
        };
        match self.input.byte() % 8 {
            0 | 3 => self.registers[register].reserved = Some("pass"),
            1 => self.registers[register].reserved = Some("zero"),
            2 => self.registers[register].writable = Some(self.bit(bits & !named)),
            _ => {}
        }
    }
}
