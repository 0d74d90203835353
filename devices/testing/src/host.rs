// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated device behind [`HostFunction`](devices::vfio_pci::HostFunction): records calls, keeps the rules of VFIO, and fails
//! on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::Gpa;
use devices::pci::{BarKind, MsiMessage, Region};
use devices::vfio_pci::{BusMasterGate, HostError, HostInfo, InterruptKind};

use super::device::DeviceImage;
use super::rules::{standard_list, writable_bytes};

const IO: u8 = 1;
const MEMORY: u8 = 2;
const BUS_MASTER: u8 = 4;
const PAGE: u64 = 4096;

/// A call of a [`HostFunction`](devices::vfio_pci::HostFunction) method that does something.
#[expect(missing_docs, reason = "fields are named as the methods' parameters")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    ConfigRead {
        offset: u16,
        length: usize,
    },
    ConfigWrite {
        offset: u16,
        data: Vec<u8>,
    },
    RegionRead {
        region: Region,
        offset: u64,
        length: usize,
    },
    RegionWrite {
        region: Region,
        offset: u64,
        data: Vec<u8>,
    },
    Map {
        bar: u8,
        area: Range<u64>,
        gpa: Gpa,
    },
    Unmap {
        bar: u8,
        area: Range<u64>,
    },
    Enable {
        kind: InterruptKind,
        vectors: u16,
    },
    Disable,
    Connect {
        vector: u16,
        message: MsiMessage,
    },
    Disconnect {
        vector: u16,
    },
    Restore,
    Reset,
}

/// The kind of interrupt that is on, and what each vector that is on is connected to.
type Raised = (InterruptKind, BTreeMap<u16, Option<MsiMessage>>);
type FaultHook = Box<dyn FnMut(&Call) -> bool + Send>;

pub(super) struct State {
    pub(super) info: HostInfo,
    pub(super) config: Vec<u8>,
    writable: Vec<bool>,
    pm: Option<usize>,
    express: Option<usize>,
    /// COMMAND when the device went to D3hot. VFIO gives it back on the way to D0 if the device
    /// loses it (drivers/vfio/pci/vfio_pci_core.c vfio_pci_set_power_state).
    asleep: Option<u8>,
    msix: Option<(u8, Range<u64>)>,
    /// Message Control.
    pub(super) msix_control: Option<usize>,
    pub(super) registers: BTreeMap<(Region, u64), u8>,
    mapped: Vec<(u8, Range<u64>, Gpa)>,
    pub(super) interrupts: Option<Raised>,
    /// Most vectors that can be turned on at once.
    pub(super) most: u16,
    /// Memory decode is not COMMAND's to turn off.
    decodes_always: bool,
    pub(super) pending: BTreeSet<u16>,
    gate: Option<BusMasterGate>,
    calls: Vec<Call>,
    violations: Vec<String>,
    pub(super) fault: Option<FaultHook>,
}

/// The device, as the function under test holds it.
#[derive(Debug)]
pub struct SimulatedHost {
    pub(super) info: HostInfo,
    pub(super) witness: Witness,
}

/// The device, as the test sees it.
#[derive(Clone)]
pub struct Witness(Arc<Mutex<State>>);

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl SimulatedHost {
    /// The device that `image` describes, and the view of it for the test. If there is a `gate`,
    /// the device must never be made a bus master while that is closed.
    #[must_use]
    pub fn new(image: DeviceImage, gate: Option<BusMasterGate>) -> (Self, Witness) {
        let DeviceImage { config, info } = image;
        let find = |id| capability(&config, id);
        let state = State {
            writable: writable_bytes(&config),
            pm: find(0x01),
            asleep: None,
            express: find(0x10),
            msix_control: find(0x11).map(|at| at + 2).filter(|at| at + 2 <= 0x100),
            msix: find(0x11).and_then(|at| msix_table(&config, at)),
            info: info.clone(),
            config,
            registers: BTreeMap::new(),
            mapped: Vec::new(),
            interrupts: None,
            most: u16::MAX,
            decodes_always: false,
            pending: BTreeSet::new(),
            gate,
            calls: Vec::new(),
            violations: Vec::new(),
            fault: None,
        };
        let witness = Witness(Arc::new(Mutex::new(state)));
        let host = Self {
            info,
            witness: witness.clone(),
        };
        (host, witness)
    }

    /// Records `call` and performs it with `act`, unless a fault is due.
    pub(super) fn perform<R>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State) -> R,
    ) -> Result<R, HostError> {
        let mut state = self.witness.lock();
        let fails = state.fault.as_mut().is_some_and(|fault| fault(&call));
        let result = if fails {
            Err(HostError(format!("fault injected into {call:?}").into()))
        } else {
            Ok(act(&mut state))
        };
        state.calls.push(call);
        result
    }
}

impl Witness {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls since the last time, reads left out.
    #[must_use]
    pub fn take_calls(&self) -> Vec<Call> {
        let mut calls = std::mem::take(&mut self.lock().calls);
        calls.retain(|call| !matches!(call, Call::ConfigRead { .. } | Call::RegionRead { .. }));
        calls
    }

    /// The calls since the last time, reads included.
    #[must_use]
    pub fn take_all_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// What was done that must not be done.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The device's COMMAND register.
    #[must_use]
    pub fn command(&self) -> u16 {
        let state = self.lock();
        u16::from_le_bytes([state.config[4], state.config[5]])
    }

    /// Bytes of config space as the device has them.
    #[must_use]
    pub fn config(&self, range: Range<usize>) -> Vec<u8> {
        self.lock().config[range].to_vec()
    }

    /// Changes a byte of config space, as the device itself might.
    pub fn set_config(&self, offset: usize, value: u8) {
        self.lock().config[offset] = value;
    }

    /// Areas mapped at present.
    #[must_use]
    pub fn mapped(&self) -> Vec<(u8, Range<u64>)> {
        let state = self.lock();
        let mapped = state.mapped.iter();
        mapped.map(|(bar, area, _)| (*bar, area.clone())).collect()
    }

    /// For each area mapped at present, its BAR and where that begins for the guest.
    #[must_use]
    pub fn placed(&self) -> Vec<(u8, u64)> {
        let state = self.lock();
        let mapped = state.mapped.iter();
        mapped
            .map(|(bar, area, gpa)| (*bar, gpa.0.wrapping_sub(area.start)))
            .collect()
    }

    /// The kind of interrupt that is on, and what its vectors are connected to, up to the last one
    /// that is on.
    #[must_use]
    pub fn interrupts(&self) -> Option<(InterruptKind, Vec<Option<MsiMessage>>)> {
        let state = self.lock();
        let (kind, set) = state.interrupts.as_ref()?;
        let last = set.keys().next_back().copied()?;
        let vectors = (0..=last).map(|vector| set.get(&vector).copied().flatten());
        Some((*kind, vectors.collect()))
    }

    /// Makes the device a virtual function: it decodes memory whatever COMMAND has, and that bit
    /// reads as 0 (Single Root I/O Virtualization, section 3.4.1.3).
    pub fn hardwire_memory(&self) {
        self.lock().decodes_always = true;
    }

    /// Whether the device is in D0.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.lock().in_d0()
    }

    /// The host has no more than `most` vectors for the device.
    pub fn serve_at_most(&self, most: u16) {
        self.lock().most = most;
    }

    /// The device loses its MSI-X Enable, as by its own reset.
    pub fn lose_msix(&self) {
        let mut state = self.lock();
        if let Some(at) = state.msix_control {
            state.config[at + 1] &= 0x7f;
        }
    }

    /// Lets `vector` be raised; it stays pending until it is connected.
    pub fn raise(&self, vector: u16) {
        self.lock().pending.insert(vector);
    }

    /// Sets bytes of a region, as the device itself might.
    pub fn set_register(&self, region: Region, offset: u64, data: &[u8]) {
        let mut state = self.lock();
        for (at, byte) in (offset..).zip(data) {
            state.registers.insert((region, at), *byte);
        }
    }

    /// Fails those calls that `fault` selects.
    pub fn inject(&self, fault: impl FnMut(&Call) -> bool + Send + 'static) {
        self.lock().fault = Some(Box::new(fault));
    }

    /// Ends [`inject`](Self::inject).
    pub fn heal(&self) {
        self.lock().fault = None;
    }
}

impl State {
    pub(super) fn expect(&mut self, holds: bool, rule: &str, detail: impl fmt::Debug) {
        if !holds {
            self.violations.push(format!("{rule}: {detail:x?}"));
        }
    }

    pub(super) fn in_d0(&self) -> bool {
        self.pm.is_none_or(|at| self.config[at + 4] & 3 == 0)
    }

    fn decodes(&self, region: Region) -> bool {
        let enable = match region {
            Region::Bar(bar) if self.kind(bar) == BarKind::Io => IO,
            Region::Bar(_) | Region::Rom => MEMORY,
        };
        let always = self.decodes_always && enable == MEMORY;
        (always || self.config[4] & enable != 0) && self.in_d0()
    }

    fn kind(&self, bar: u8) -> BarKind {
        BarKind::from_register(self.config[0x10 + 4 * usize::from(bar)].into())
    }

    pub(super) fn check_config(&mut self, offset: u16, length: usize) {
        let fits = usize::from(offset) + length <= self.config.len();
        let shape = matches!(length, 1 | 2 | 4) && usize::from(offset).is_multiple_of(length);
        self.expect(
            fits && shape,
            "config access of a wrong shape",
            (offset, length),
        );
    }

    pub(super) fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.check_config(offset, data.len());
        for (at, byte) in (usize::from(offset)..self.config.len()).zip(data) {
            self.expect(
                self.writable[at],
                "write to a forbidden register",
                (offset, data),
            );
            self.write_config_byte(at, *byte);
        }
    }

    fn write_config_byte(&mut self, at: usize, byte: u8) {
        let mapped = !self.mapped.is_empty();
        let in_register = |start: Option<usize>| start.and_then(|start| at.checked_sub(start));
        match (at, in_register(self.pm), in_register(self.express)) {
            (4, ..) => {
                let mastering = byte & BUS_MASTER != 0;
                let allowed = self.gate.as_ref().is_none_or(BusMasterGate::is_open);
                self.expect(
                    !mastering || allowed,
                    "bus master behind a closed gate",
                    byte,
                );
                let cleared = byte & MEMORY == 0;
                self.expect(
                    !(mapped && cleared),
                    "memory decode off with BARs mapped",
                    byte,
                );
                let fixed = if self.decodes_always { MEMORY } else { 0 };
                self.config[at] = byte & !fixed;
            }
            (_, Some(4), _) => {
                self.expect(
                    !(mapped && byte & 3 != 0),
                    "power state with BARs mapped",
                    byte,
                );
                // D1 and D2 only if the device reports them.
                let offered = self.pm.map_or(0, |pm| self.config[pm + 3]);
                let supported = match byte & 3 {
                    1 => offered & 2 != 0,
                    2 => offered & 4 != 0,
                    _ => true,
                };
                if supported {
                    self.set_power(at, byte & 3);
                }
            }
            (_, _, Some(9)) => {
                self.expect(byte & 0x08 == 0, "No-Snoop enabled", byte);
                self.expect(byte & 0x80 == 0, "function reset by register", byte);
                self.config[at] = byte & 0x7f;
            }
            _ => self.config[at] = byte,
        }
    }

    /// Puts the power state into the register at `at`.
    fn set_power(&mut self, at: usize, state: u8) {
        let loses_state = self.config[at] & 8 == 0;
        match (self.config[at] & 3, state) {
            (0..3, 3) if loses_state => self.asleep = Some(self.config[4]),
            (3, 0) => {
                if let Some(command) = self.asleep.take() {
                    self.config[4] = command;
                }
            }
            _ => {}
        }
        self.config[at] = self.config[at] & !3 | state;
    }

    pub(super) fn check_region(&mut self, region: Region, offset: u64, length: usize) {
        let size = match region {
            Region::Bar(bar) => self.info.bars[usize::from(bar)].size,
            Region::Rom => self.info.rom.size,
        };
        let end = offset.checked_add(length as u64);
        let inside = end.is_some_and(|end| end <= size.max(0x800)) && offset < size.max(0x800);
        let shape = matches!(length, 1 | 2 | 4 | 8) && offset.is_multiple_of(length as u64);
        self.expect(
            inside && shape,
            "region access of a wrong shape",
            (region, offset, length),
        );
        let decodes = self.decodes(region);
        self.expect(decodes, "region access without decode", (region, offset));
        let table = self
            .msix
            .clone()
            .is_some_and(|(bar, range)| region == Region::Bar(bar) && range.contains(&offset));
        self.expect(!table, "access to the real MSI-X table", (region, offset));
    }

    pub(super) fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) {
        let region = self.info.bars[usize::from(bar)].clone();
        let within = region
            .mappable
            .iter()
            .any(|range| range.start <= area.start && area.end <= range.end);
        self.expect(
            within && area.start < area.end,
            "map of what cannot be",
            (bar, &area),
        );
        let start = gpa.0.checked_sub(area.start);
        let aligned = start.is_some_and(|start| start.is_multiple_of(region.size));
        self.expect(aligned, "map where no BAR can be", (bar, gpa));
        let decodes = self.decodes(Region::Bar(bar));
        self.expect(decodes, "map without decode", (bar, &area));
        let overlaps = |other: &u8, range: &Range<u64>| {
            *other == bar && range.start < area.end && area.start < range.end
        };
        let taken = self
            .mapped
            .iter()
            .any(|(other, range, _)| overlaps(other, range));
        self.expect(!taken, "area mapped twice", (bar, &area));
        let table = self.msix.clone().is_some_and(|(table_bar, range)| {
            let pages = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
            overlaps(&table_bar, &pages)
        });
        self.expect(!table, "MSI-X table mapped", (bar, &area));
        self.mapped.push((bar, area, gpa));
    }

    pub(super) fn unmap(&mut self, bar: u8, area: Range<u64>) {
        let is_it = |mapped: &(u8, Range<u64>, Gpa)| mapped.0 == bar && mapped.1 == area;
        let place = self.mapped.iter().position(is_it);
        self.expect(place.is_some(), "unmap of what is not mapped", (bar, &area));
        if let Some(place) = place {
            self.mapped.swap_remove(place);
        }
    }

    pub(super) fn reset(&mut self) {
        let quiet = self.mapped.is_empty();
        self.expect(quiet, "reset with BARs mapped", ());
        // Where turning them off failed, a reset is the next best thing.
        let off = self.interrupts.is_none() || self.fault.is_some();
        self.expect(off, "reset with interrupts on", ());
        if let Some(at) = self.pm {
            self.set_power(at + 4, 0);
        }
        if let Some(at) = self.express {
            // The default of No-Snoop Enable is 1.
            self.config[at + 9] |= 0x08;
        }
        self.pending.clear();
        self.registers.clear();
    }
}

fn capability(config: &[u8], id: u16) -> Option<usize> {
    let mut list = standard_list(config).into_iter();
    list.find_map(|(found, at)| (found == id).then_some(at))
}

fn msix_table(config: &[u8], at: usize) -> Option<(u8, Range<u64>)> {
    let vectors =
        u64::from(u16::from_le_bytes([*config.get(at + 2)?, *config.get(at + 3)?]) & 0x7ff) + 1;
    let register = u32::from_le_bytes(config.get(at + 4..at + 8)?.try_into().ok()?);
    let start = u64::from(register & !7);
    Some((config[at + 4] & 7, start..start + 16 * vectors))
}
