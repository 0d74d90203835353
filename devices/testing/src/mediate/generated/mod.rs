// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices and their profiles decoded from bytes, and a guest that tries everything on each. The
//! device takes each store by itself, as hardware does, and checks what it received when it starts
//! and for as long as it goes by its registers.

mod device;
mod generate;
mod hardware;

use device::{
    ALIAS, Channel, DATA, Device, Direction, INDEX, Length, MIRROR, OTHER_WAYS, SPACE, WINDOW,
};
use devices::mediate::{Counters, MediatedFunction, Options, Profile};
use devices::pci::Region;
use devices::vfio_pci::HostFunction;
use hardware::{Hardware, Shared};

use crate::input::Input;

use super::memory::GuestMemory;

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Profiles that were accepted.
    pub accepted: u64,
    /// Profiles that were not.
    pub rejected: u64,
    /// Transfers that were started.
    pub started: u64,
    /// Transfers refused.
    pub refused: u64,
    /// Starts while a transfer was under way.
    pub busy: u64,
    /// Accesses without effect.
    pub ignored: u64,
}

impl Seen {
    /// Adds another sequence.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.started += other.started;
        self.refused += other.refused;
        self.busy += other.busy;
        self.ignored += other.ignored;
    }
}

/// Makes up a device from `bytes`, and runs the operations in the rest of them if its profile is
/// accepted.
///
/// # Panics
///
/// If a transfer starts, or continues, that is not of the guest's memory or not as the profile has
/// it, or the monitor's counts are not the device's.
pub fn run(bytes: &[u8]) -> Seen {
    let mut input = Input(bytes);
    let device = generate::device(&mut input);
    let text = device.profile();
    let Ok(profile) = Profile::parse("made-up", &text) else {
        return Seen {
            rejected: 1,
            ..Seen::default()
        };
    };
    // Some end where 28 and 32 bits do.
    let host = input.choose(&[0x0100_0000, 0x0fff_0000, 0xffff_0000, 0x20_0000_0000]);
    let memory = GuestMemory::at(host);
    let (hardware, state) = Hardware::new(device.clone(), memory.clone());
    let options = Options {
        translate: Box::new(memory.translate()),
        on_stop: Box::new(|_| {}),
    };
    let made = MediatedFunction::new(hardware, profile, options);
    assert!(made.is_ok(), "{:?}\n{text}", made.err());
    let Ok(function) = made else {
        return Seen::default();
    };
    let mut guest = Guest {
        counters: function.counters(),
        function,
        state,
        device,
        gpas: memory.gpas(),
        memory,
    };
    while !input.0.is_empty() {
        guest.operate(&mut input);
        let violations = std::mem::take(&mut guest.state.lock().violations);
        assert_eq!(violations, Vec::<String>::new(), "{text}");
    }
    let counted = guest.counters.read();
    assert_eq!(counted.started, guest.state.lock().started, "{text}");
    assert_eq!(counted.failed, 0, "{text}");
    Seen {
        accepted: 1,
        rejected: 0,
        started: counted.started,
        refused: counted.refused,
        busy: counted.busy,
        ignored: counted.ignored,
    }
}

struct Guest {
    function: MediatedFunction<Hardware>,
    counters: Counters,
    state: Shared,
    device: Device,
    memory: GuestMemory,
    gpas: Vec<u64>,
}

impl Guest {
    fn operate(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..6 => {
                let (bar, offset, width) = self.place(input);
                let value = self.value(input);
                self.write(bar, offset, width, value);
            }
            6..8 => {
                let (bar, offset, width) = self.place(input);
                let mut data = vec![0; width as usize];
                let read = self
                    .function
                    .region_read(Region::Bar(bar), offset, &mut data);
                assert!(read.is_ok());
            }
            8..22 => self.attempt(input),
            22..27 => self.status(input),
            27..30 => self.state.lock().finish(),
            30 if input.byte().is_multiple_of(4) => {
                // It may fail, and the device continue.
                _ = self.function.reset();
            }
            _ if input.byte().is_multiple_of(4) => self.function.was_reset(),
            _ => self.state.lock().finish(),
        }
    }

    /// Any place near a register, and any way there.
    fn place(&self, input: &mut Input<'_>) -> (u8, u64, u64) {
        let width = input.choose(&[1, 2, 4, 8]);
        let register =
            &self.device.registers[usize::from(input.byte()) % self.device.registers.len()];
        let byte = u64::from(input.byte()) % register.width;
        let offset = match input.byte() % 8 {
            0 => u64::from(input.byte()) * 4 % SPACE,
            _ => register.place(byte),
        };
        let offset = offset / width * width;
        match input.byte() % 8 {
            0 => (MIRROR, offset, width),
            1 => (OTHER_WAYS, ALIAS + offset, width),
            2 => (OTHER_WAYS, input.choose(&[INDEX, DATA]), width),
            3 => (3, offset + input.choose(&[0x8000, 0x9000, 0xf000]), width),
            _ => (self.device.bar, offset, width),
        }
    }

    fn write(&mut self, bar: u8, offset: u64, width: u64, value: u64) {
        let bytes = value.to_le_bytes();
        let done = self
            .function
            .region_write(Region::Bar(bar), offset, &bytes[..width as usize]);
        assert!(done.is_ok(), "{done:?}");
    }

    /// A store to a register of busy or status bits, where there is one, or else to any.
    fn status(&mut self, input: &mut Input<'_>) {
        let channel = &self.device.channels[usize::from(input.byte()) % self.device.channels.len()];
        let register = match channel.busy {
            Some(busy) => busy.register,
            None => usize::from(input.byte()) % self.device.registers.len(),
        };
        let value = match input.byte() % 4 {
            0 => 0,
            1 => u64::MAX,
            2 => channel.busy.map_or(1, |busy| busy.mask),
            _ => input.value(),
        };
        self.register(register, value, input);
    }

    fn value(&self, input: &mut Input<'_>) -> u64 {
        let page = input.choose(&self.gpas);
        match input.byte() % 8 {
            0 => input.value(),
            1 => u64::from(input.byte()),
            2 => page + 0x1000 - u64::from(input.byte() % 0x20),
            3 => WINDOW.start + input.word() % 0x1000,
            4 => u64::MAX,
            5 => page | page << 32,
            _ => page + input.word() % 0x1000,
        }
    }

    /// Stores all of a register, in pieces that it takes.
    fn register(&mut self, number: usize, value: u64, input: &mut Input<'_>) {
        let register = self.device.registers[number].clone();
        let whole = match register.high {
            Some(_) => register.width / 2,
            None => register.width,
        };
        let widths: Vec<_> = [1, 2, 4, 8]
            .into_iter()
            .filter(|width| *width <= whole && register.takes(*width))
            .filter(|width| !register.replace || *width == whole)
            .collect();
        // What it takes may be nothing.
        let width = match widths.last() {
            Some(largest) if !input.byte().is_multiple_of(4) => *largest,
            Some(_) => input.choose(&widths),
            None => whole,
        };
        let mut bytes: Vec<_> = (0..register.width).step_by(width as usize).collect();
        if input.byte().is_multiple_of(2) {
            bytes.reverse();
        }
        let way = input.byte() % 8;
        for byte in bytes {
            let (offset, part) = (register.place(byte), value >> (8 * byte));
            match way {
                0 => self.write(OTHER_WAYS, ALIAS + offset, width, part),
                1 if offset.is_multiple_of(self.device.stride) => {
                    self.write(OTHER_WAYS, INDEX, 4, offset / self.device.stride);
                    self.write(OTHER_WAYS, DATA, width, part);
                }
                2 => self.write(MIRROR, offset, width, part),
                _ => self.write(self.device.bar, offset, width, part),
            }
        }
    }

    /// A transfer that is right, or nearly so, and its start.
    fn attempt(&mut self, input: &mut Input<'_>) {
        let number = usize::from(input.byte()) % self.device.channels.len();
        let channel = self.device.channels[number].clone();
        let mut values = vec![0; self.device.registers.len()];
        let length = fill_length(&channel, &mut values, input);
        let is_to_memory = input.byte().is_multiple_of(2);
        if let Direction::Field(field, from) = channel.direction {
            values[field.register] |= if is_to_memory { field.value } else { from };
        }
        for register in channel.address_registers().into_iter().flatten() {
            values[register] = self.address(length, channel.alignment, input);
        }
        // The registers' addresses are in memory, or one of them is the device's.
        if let [Some(first), Some(second)] = channel.address_registers() {
            let device = match channel.addresses {
                device::Addresses::Sides { .. } => Some(second),
                device::Addresses::Ends { .. } => match channel.direction {
                    Direction::Fixed(device::Way::Within) => None,
                    Direction::Fixed(device::Way::ToMemory) => Some(first),
                    Direction::Fixed(device::Way::FromMemory) => Some(second),
                    Direction::Field(..) => Some(if is_to_memory { first } else { second }),
                },
            };
            if let Some(device) = device {
                values[device] = WINDOW.end.saturating_sub(length).max(WINDOW.start);
            }
        }
        if input.byte().is_multiple_of(4) {
            // Bits that no field names, or something wrong.
            let register = usize::from(input.byte()) % values.len();
            values[register] |= input.value() & input.value();
        }
        values[channel.start.register] &= !channel.start.mask;
        let mut order: Vec<_> = (0..values.len())
            .filter(|register| channel.is_parameter(*register))
            .collect();
        if !order.is_empty() {
            let first = usize::from(input.byte()) % order.len();
            order.rotate_left(first);
        }
        for register in order {
            self.register(register, values[register], input);
        }
        let start = channel.start;
        let mut value = values[start.register] | start.value;
        // An order to clear the busy bits at once.
        let busy = channel
            .busy
            .filter(|busy| busy.register == start.register && busy.mask != start.mask);
        if let Some(busy) = busy
            && input.byte().is_multiple_of(2)
        {
            value |= busy.mask;
        }
        self.register(start.register, value, input);
    }

    /// Where `length` bytes are in one piece, most often at the end of one.
    fn address(&self, length: u64, alignment: u64, input: &mut Input<'_>) -> u64 {
        let page = input.choose(&self.gpas);
        let within = match input.byte() % 4 {
            0 => 0,
            1 => input.word() % 0x1000,
            _ => 0x1000_u64.saturating_sub(length),
        };
        let gpa = (page + within) / alignment * alignment;
        match self.memory.contiguous(gpa, length.max(1)) {
            Some(_) => gpa,
            None => page,
        }
    }
}

impl Channel {
    /// Whether the device gets the register before the start.
    fn is_parameter(&self, register: usize) -> bool {
        register != self.start.register
            && (self.named(register) != 0 || self.address_registers().contains(&Some(register)))
    }
}

/// Puts a length into its register; returns how many bytes it is.
fn fill_length(channel: &Channel, values: &mut [u64], input: &mut Input<'_>) -> u64 {
    let wanted = match input.byte() % 4 {
        0 => channel.max_length,
        1 => 0x1000,
        2 => 0x10,
        _ => input.word() % 0x400,
    };
    match channel.length {
        Length::Fixed(bytes) => bytes,
        Length::Field { field, unit, bias } => {
            let low = field.mask.trailing_zeros();
            let count = (wanted / unit).saturating_sub(bias) << low & field.mask;
            values[field.register] |= count;
            ((count >> low) + bias) * unit
        }
    }
}
