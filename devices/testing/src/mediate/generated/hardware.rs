// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device itself: it takes each store as it comes, and trusts none of them. Written
//! independently of the monitor.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::Gpa;
use devices::pci::Region;
use devices::vfio_pci::{HostError, HostFunction, HostInfo, InterruptKind, RegionInfo, Vectors};

use super::super::memory::GuestMemory;
use super::device::{
    ALIAS, Addresses, BESIDE_MSIX, Channel, DATA, Device, Direction, INDEX, Length, MIRROR,
    OTHER_WAYS, Quirk, SPACE, WINDOW, Way,
};

const BAR_SIZE: u64 = 0x10000;
/// First of the places where [`BESIDE_MSIX`] has the table: the one that config space names.
const TABLE: u64 = 0x8000;

/// What a channel does.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    running: bool,
    /// Whether its busy bits report it.
    shown: bool,
    /// Accesses after which it is done, if it does not wait for longer.
    left: Option<u8>,
}

pub(super) struct State {
    device: Device,
    memory: GuestMemory,
    values: Vec<u64>,
    work: Vec<Work>,
    index: u64,
    patience: u8,
    pub started: u64,
    pub violations: Vec<String>,
}

/// The device, as the monitor has it.
pub(super) struct Hardware {
    info: HostInfo,
    state: Shared,
}

/// The device, as the test sees it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is at an offset: the register, and which of its bytes.
    fn find(&self, offset: u64) -> Option<(usize, u64)> {
        let places = self.device.registers.iter().enumerate();
        places
            .flat_map(|(number, register)| (0..register.width).map(move |byte| (number, byte)))
            .find(|(number, byte)| self.device.registers[*number].place(*byte) == offset)
    }

    /// Where in the registers' own place an access arrives.
    fn route(&self, bar: u8, offset: u64) -> Option<u64> {
        if bar == self.device.bar || bar == MIRROR {
            return Some(offset);
        }
        let data = DATA..DATA + 8;
        match bar {
            OTHER_WAYS if (ALIAS..ALIAS + SPACE).contains(&offset) => Some(offset - ALIAS),
            OTHER_WAYS if data.contains(&offset) => self
                .index
                .checked_mul(self.device.stride)?
                .checked_add(offset - DATA),
            _ => None,
        }
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Time passes with each access.
    fn pass(&mut self) {
        for work in &mut self.work {
            work.left = work.left.map(|left| left.saturating_sub(1));
            if work.running && work.left == Some(0) {
                *work = Work::default();
            }
        }
    }

    /// All that runs moves its data, as the registers are now, and is done.
    pub fn finish(&mut self) {
        self.move_data();
        self.work.fill(Work::default());
    }

    fn store(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.pass();
        if bar == BESIDE_MSIX && offset % 0x1000 < 0x20 && offset >= TABLE {
            self.violation(format!("a store to the MSI-X table at {offset:#x}"));
        }
        if bar == OTHER_WAYS && offset == INDEX {
            let low = data.iter().take(4).rev();
            self.index = low.fold(0, |index, byte| index << 8 | u64::from(*byte));
        }
        let Some(offset) = self.route(bar, offset) else {
            return;
        };
        let mut touched = vec![0_u64; self.values.len()];
        let mut stored = vec![0_u64; self.values.len()];
        for (at, byte) in (0..).zip(data) {
            if let Some((register, place)) = self.find(offset + at) {
                touched[register] |= 0xff << (8 * place);
                stored[register] |= u64::from(*byte) << (8 * place);
            }
        }
        let length = data.len() as u64;
        for (number, register) in self.device.registers.iter().enumerate() {
            let at_start = offset == register.offset && length <= register.width;
            if !register.takes(length) || register.replace && !at_start {
                touched[number] = 0;
            } else if register.replace && touched[number] != 0 {
                touched[number] = register.bits();
            }
        }
        for number in 0..self.values.len() {
            let (mask, bits) = (touched[number], stored[number]);
            self.values[number] = self.values[number] & !mask | bits & mask;
        }
        let orders: Vec<_> = (0..self.device.channels.len())
            .filter(|channel| self.is_order(*channel, &touched, &stored))
            .collect();
        self.move_data();
        for channel in orders {
            self.start(channel);
        }
        for channel in 0..self.device.channels.len() {
            self.clear_busy(channel, &touched, &stored);
        }
    }

    /// Whether a store starts a transfer.
    fn is_order(&self, channel: usize, touched: &[u64], stored: &[u64]) -> bool {
        let channel = &self.device.channels[channel];
        let start = channel.start;
        let decides = touched[start.register] & start.mask != 0
            || start.mask == 0 && touched[start.register] != 0;
        if decides && self.values[start.register] & start.mask == start.value {
            return true;
        }
        let busy = channel.busy.filter(|busy| busy.register != start.register);
        busy.is_some_and(|busy| {
            let known = self.device.registers[busy.register].writable.unwrap_or(0);
            let strange = touched[busy.register] & stored[busy.register] & !known;
            channel.quirk == Quirk::Order && strange != 0
        })
    }

    /// What a store does to busy bits, after all else that it does.
    fn clear_busy(&mut self, channel: usize, touched: &[u64], stored: &[u64]) {
        let Channel {
            busy: Some(busy),
            quirk,
            start,
            ..
        } = self.device.channels[channel]
        else {
            return;
        };
        let (bits, ones) = (
            touched[busy.register] & busy.mask,
            stored[busy.register] & busy.mask,
        );
        let cleared = match quirk {
            Quirk::OneClears => ones != 0,
            Quirk::Plain if busy.register != start.register => ones != busy.value & bits,
            _ => false,
        };
        if cleared {
            self.work[channel].shown = false;
        }
    }

    fn start(&mut self, channel: usize) {
        self.started += 1;
        if let Err(what) = self.transfer(channel) {
            self.violation(format!("channel {channel} starts with {what}"));
        }
        self.patience = self.patience.wrapping_mul(5).wrapping_add(3);
        let left = self.patience >> 4;
        self.work[channel] = Work {
            running: true,
            shown: true,
            left: (left < 6).then_some(left + 1),
        };
    }

    /// What runs and does not keep a copy of its registers goes by what they are now.
    fn move_data(&mut self) {
        for channel in 0..self.work.len() {
            let live = self.device.channels[channel].busy.is_some();
            if live
                && self.work[channel].running
                && let Err(what) = self.transfer(channel)
            {
                self.violation(format!("channel {channel} goes on with {what}"));
            }
        }
    }

    /// Bytes, as far as 64 bits hold them.
    fn length(&self, channel: &Channel) -> u64 {
        let length = match channel.length {
            Length::Fixed(bytes) => u128::from(bytes),
            Length::Field { field, unit, bias } => {
                let bits = self.values[field.register] & field.mask;
                let count = u128::from(bits >> field.mask.trailing_zeros()) + u128::from(bias);
                count * u128::from(unit)
            }
        };
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    /// Whether the transfer that the registers describe is one of the guest's memory.
    fn transfer(&self, number: usize) -> Result<(), String> {
        let channel = &self.device.channels[number];
        let way = match channel.direction {
            Direction::Fixed(way) => way,
            Direction::Field(field, from) => match self.values[field.register] & field.mask {
                bits if bits == field.value => Way::ToMemory,
                bits if bits == from => Way::FromMemory,
                bits => return Err(format!("direction {bits:#x}")),
            },
        };
        let length = self.length(channel);
        if !(1..=channel.max_length).contains(&length) {
            return Err(format!("{length:#x} bytes"));
        }
        let (memory, device) = match (channel.addresses, way) {
            (Addresses::Sides { memory, device }, _) => (vec![memory], device),
            (
                Addresses::Ends {
                    source,
                    destination,
                },
                Way::ToMemory,
            ) => (vec![destination], Some(source)),
            (
                Addresses::Ends {
                    source,
                    destination,
                },
                Way::FromMemory,
            ) => (vec![source], Some(destination)),
            (
                Addresses::Ends {
                    source,
                    destination,
                },
                Way::Within,
            ) => (vec![source, destination], None),
        };
        if let Some(device) = device {
            let address = self.values[device];
            let end = address.checked_add(length);
            if !WINDOW.contains(&address) || end.is_none_or(|end| end > WINDOW.end) {
                return Err(format!("device address {address:#x}, {length:#x} bytes"));
            }
        }
        for memory in memory {
            let address = self.values[memory] & u64::MAX >> (64 - channel.address_bits);
            if !self.is_guests(channel, address, length) {
                return Err(format!("address {address:#x}, {length:#x} bytes"));
            }
        }
        self.strange_bits(channel)
    }

    fn is_guests(&self, channel: &Channel, address: u64, length: u64) -> bool {
        let address = address & !(channel.alignment - 1);
        // Within a boundary it counts around.
        let at = |step: u64| match channel.boundary {
            Some(boundary) => {
                address & !(boundary - 1) | (address.wrapping_add(step) & (boundary - 1))
            }
            None => address.wrapping_add(step),
        };
        let steps = (0..length).step_by(16).chain([length - 1]);
        steps.into_iter().all(|step| self.memory.owns(at(step)))
    }

    /// A bit that the profile gives no meaning has one: it sends the device to an address that
    /// was not checked.
    fn strange_bits(&self, channel: &Channel) -> Result<(), String> {
        for (number, register) in self.device.registers.iter().enumerate() {
            let named = channel.named(number);
            if named == 0 || register.reserved == Some("pass") {
                continue;
            }
            let busy = channel.busy.filter(|busy| busy.register == number);
            let known = named | register.writable.unwrap_or(0) | busy.map_or(0, |busy| busy.mask);
            let strange = self.values[number] & !known;
            if strange != 0 {
                return Err(format!("bits {strange:#x} of {}", register.name));
            }
        }
        Ok(())
    }

    fn load(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.pass();
        data.fill(0xff);
        let Some(offset) = self.route(bar, offset) else {
            return;
        };
        let length = data.len() as u64;
        for (at, byte) in (0..).zip(data) {
            let Some((number, place)) = self.find(offset + at) else {
                continue;
            };
            if self.device.registers[number].takes(length) {
                *byte = (self.shown(number) >> (8 * place)) as u8;
            }
        }
    }

    /// What a register reads as.
    fn shown(&self, register: usize) -> u64 {
        let mut value = self.values[register];
        for (channel, work) in self.device.channels.iter().zip(&self.work) {
            let busy = channel.busy.filter(|busy| busy.register == register);
            let Some(busy) = busy else { continue };
            let lowest = busy.mask & busy.mask.wrapping_neg();
            let idle = busy.value ^ lowest;
            let bits = if work.running && work.shown {
                busy.value
            } else {
                idle
            };
            value = value & !busy.mask | bits;
        }
        value
    }
}

impl Hardware {
    pub fn new(device: Device, memory: GuestMemory) -> (Self, Shared) {
        let mut bars: [RegionInfo; 6] = Default::default();
        for bar in [0, 1, 2, 3] {
            bars[bar].size = BAR_SIZE;
        }
        let info = HostInfo {
            name: "made-up".to_owned(),
            bars,
            rom: RegionInfo::default(),
            config_size: 256,
            page_size: 4096,
            interrupts: [(InterruptKind::Msix, Vectors::growing(2))]
                .into_iter()
                .collect(),
            resettable: true,
        };
        let state = State {
            memory,
            values: vec![0; device.registers.len()],
            work: vec![Work::default(); device.channels.len()],
            index: 0,
            patience: 0,
            started: 0,
            violations: Vec::new(),
            device,
        };
        let state = Shared(Arc::new(Mutex::new(state)));
        let shared = state.clone();
        (Self { info, state }, shared)
    }
}

impl HostFunction for Hardware {
    accessors_without_effect!();

    /// IDs, and an MSI-X capability at 0x40 with a table of two entries.
    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let dword: u32 = match offset {
            0x00 => 0x11e8_1234,
            0x04 => 0x0010_0000,
            0x34 => 0x40,
            0x40 => 0x0001_0011,
            0x44 => TABLE as u32 | u32::from(BESIDE_MSIX),
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(dword.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    fn config_write(&mut self, _: u16, _: &[u8]) -> Result<(), HostError> {
        Ok(())
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        if let Region::Bar(bar) = region {
            self.state.lock().load(bar, offset, data);
        }
        Ok(())
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        if let Region::Bar(bar) = region {
            self.state.lock().store(bar, offset, data);
        }
        Ok(())
    }

    fn map(&mut self, bar: u8, _: Range<u64>, _: Gpa) -> Result<(), HostError> {
        let what = format!("BAR {bar} is the guest's");
        self.state.lock().violation(what);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), HostError> {
        let mut state = self.state.lock();
        if !state.device.resets {
            return Err(HostError("no reset".into()));
        }
        state.values.fill(0);
        state.work.fill(Work::default());
        state.index = 0;
        Ok(())
    }
}
