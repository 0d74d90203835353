// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bus 0: its functions, the addresses that they decode, and their locks.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use address::{Bdf, Gpa};
use pci_config::regs::{CONFIG_SIZE, ECAM_BUS_SIZE, HEADER_TYPE, MULTIFUNCTION};
use thiserror::Error;

use super::access::{aligned_pieces, config_width};
use super::bus_windows::BusWindows;
use super::function::{PciFunction, Region, Space, Windows};
use super::host_bridge::HostBridge;

/// Bytes of ECAM for one bus.
pub const ECAM_SIZE: u64 = ECAM_BUS_SIZE;
/// First port of the config mechanism's two registers.
pub const CONFIG_PORT: u16 = 0xcf8;
/// Ports of the config mechanism.
pub const CONFIG_PORTS: u16 = 8;

/// 32 devices of 8 functions.
const PLACES: usize = 256;

/// A root or a function that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RootError {
    /// The ECAM range is misplaced.
    #[error(
        "The ECAM base, GPA {base}, is not a multiple of 1 MiB below the end of the address space"
    )]
    Ecam {
        /// Address asked for.
        base: Gpa,
    },
    /// No such place on the bus.
    #[error("The guest's PCI bus has no device {device} function {function}")]
    Number {
        /// Device number asked for.
        device: u8,
        /// Function number asked for.
        function: u8,
    },
    /// The place is taken.
    #[error("{bdf} of the guest's PCI bus is in use")]
    Taken {
        /// Place asked for.
        bdf: Bdf,
    },
    /// Guests look for further functions only where there is a function 0.
    #[error("{bdf} of the guest's PCI bus requires a function 0 of the same device")]
    NoFunction0 {
        /// Place asked for.
        bdf: Bdf,
    },
}

struct Slot {
    function: Mutex<Box<dyn PciFunction>>,
    /// What `function` answered when it was last asked. Kept outside its lock, so that finding
    /// the function behind an address never waits for one that is being reset.
    windows: RwLock<Windows>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Box<dyn PciFunction>> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn windows(&self) -> Windows {
        *self.windows.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the windows of the locked function.
    fn publish(&self, function: &dyn PciFunction) {
        let windows = function.windows();
        if windows != self.windows() {
            *self.windows.write().unwrap_or_else(PoisonError::into_inner) = windows;
        }
    }
}

/// The root complex with bus 0: a host bridge at `00:00.0` and the functions that were added.
///
/// Decodes config accesses through ECAM and ports 0xcf8 to 0xcff, and accesses to BARs from the
/// functions' current state. Reads that no function answers give all-ones; writes that none takes
/// are dropped. So do config accesses that are not 1, 2 or 4 bytes, naturally aligned. BAR
/// accesses of any shape are cut into naturally aligned pieces.
///
/// Any number of vCPU threads may access it at once. Each function has its own lock, and no
/// thread holds two of them, so a function that is slow (a reset takes 100 ms) only delays
/// accesses to itself.
pub struct PciRoot {
    ecam: Range<u64>,
    bus_windows: BusWindows,
    /// CONFIG_ADDRESS, port 0xcf8.
    address: AtomicU32,
    stopped: AtomicBool,
    slots: Vec<Slot>,
    /// For each place on the bus, device number times 8 plus function number, which slot is there.
    places: [Option<u8>; PLACES],
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciRoot")
            .field("ecam", &self.ecam)
            .field("functions", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl PciRoot {
    /// A root with nothing but the host bridge, and ECAM ([`ECAM_SIZE`] bytes) at `ecam`.
    ///
    /// # Errors
    ///
    /// If `ecam` is not a multiple of 1 MiB or too close to the end of the address space.
    pub fn new(ecam: Gpa) -> Result<Self, RootError> {
        let error = RootError::Ecam { base: ecam };
        let end = ecam.checked_add(ECAM_SIZE).ok_or(error)?;
        if !ecam.is_aligned(ECAM_SIZE) {
            return Err(error);
        }
        Self::at(ecam.0..end.0)
    }

    /// A root with nothing but the host bridge, whose config space ports 0xcf8 to 0xcff alone reach.
    ///
    /// # Errors
    ///
    /// None.
    pub fn of_ports() -> Result<Self, RootError> {
        Self::at(0..0)
    }

    fn at(ecam: Range<u64>) -> Result<Self, RootError> {
        let mut root = Self {
            ecam,
            bus_windows: BusWindows::default(),
            address: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            slots: Vec::new(),
            places: [None; PLACES],
        };
        root.add(0, 0, Box::new(HostBridge::new()))?;
        Ok(root)
    }

    /// The same root, whose host bridge has `windows`.
    #[must_use]
    pub fn with_windows(mut self, windows: BusWindows) -> Self {
        self.bus_windows = windows;
        self
    }

    /// Plugs `function` in as function `number` of `device` and returns its address. Function 0
    /// of a device goes in first.
    ///
    /// # Errors
    ///
    /// If the place does not exist or is in use, or function 0 is missing.
    pub fn add(
        &mut self,
        device: u8,
        number: u8,
        function: Box<dyn PciFunction>,
    ) -> Result<Bdf, RootError> {
        let bdf = Bdf::new(0, 0, device, number).ok_or(RootError::Number {
            device,
            function: number,
        })?;
        let place = usize::from(device) * 8 + usize::from(number);
        if number != 0 && self.places[place & !7].is_none() {
            return Err(RootError::NoFunction0 { bdf });
        }
        if self.places[place].is_some() {
            return Err(RootError::Taken { bdf });
        }
        self.places[place] = u8::try_from(self.slots.len()).ok();
        self.slots.push(Slot {
            windows: RwLock::new(function.windows()),
            function: Mutex::new(function),
        });
        Ok(bdf)
    }

    /// Guest-physical range of ECAM.
    #[must_use]
    pub fn ecam(&self) -> Range<Gpa> {
        Gpa(self.ecam.start)..Gpa(self.ecam.end)
    }

    /// Ends the guest's access to all functions: once this returns, no access is under way, every
    /// later read gives all-ones and every later write is dropped. For teardown: after it no vCPU
    /// can turn bus mastering on again. Waits for accesses under way.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for slot in &self.slots {
            drop(slot.lock());
        }
    }

    /// Resets every function and CONFIG_ADDRESS, as a restart of the guest does. Waits for
    /// accesses under way; vCPUs should not run. Does nothing after [`stop`](Self::stop).
    pub fn reset(&self) {
        self.address.store(0, Ordering::SeqCst);
        for slot in &self.slots {
            self.with(slot, |function| function.reset());
        }
    }

    pub(super) fn config_address(&self) -> &AtomicU32 {
        &self.address
    }

    /// The address on the bus of the CPUs' `address` outside ECAM.
    pub(super) fn on_bus(&self, address: u64) -> Option<u64> {
        Some(self.bus_windows.to_bus(Gpa(address))?.0)
    }

    pub(super) fn ecam_contains(&self, address: u64) -> bool {
        self.ecam.contains(&address)
    }

    /// Config read of the function at `place`: device number times 8 plus function number.
    pub(super) fn config_read(&self, place: usize, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        let Some(slot) = self.config_slot(place, offset, data.len()) else {
            return;
        };
        let done = self.with(slot, |target| target.config_read(offset, data));
        let header_type = usize::from(HEADER_TYPE.wrapping_sub(offset));
        if let (Some(()), Some(byte)) = (done, data.get_mut(header_type)) {
            *byte = *byte & !MULTIFUNCTION | self.multifunction_bit(place);
        }
    }

    /// Config write to the function at `place`.
    pub(super) fn config_write(&self, place: usize, offset: u16, data: &[u8]) {
        if let Some(slot) = self.config_slot(place, offset, data.len()) {
            self.with(slot, |target| target.config_write(offset, data));
        }
    }

    /// Reads from the BARs that contain `address` on the bus.
    pub(super) fn bar_read(&self, space: Space, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        for piece in aligned_pieces(address, data.len()) {
            let at = address.wrapping_add(piece.start as u64);
            self.at_address(space, at, |function, region, offset| {
                function.bar_read(region, offset, &mut data[piece]);
            });
        }
    }

    /// Writes to the BARs that contain `address` on the bus.
    pub(super) fn bar_write(&self, space: Space, address: u64, data: &[u8]) {
        for piece in aligned_pieces(address, data.len()) {
            let at = address.wrapping_add(piece.start as u64);
            self.at_address(space, at, |function, region, offset| {
                function.bar_write(region, offset, &data[piece]);
            });
        }
    }

    fn config_slot(&self, place: usize, offset: u16, len: usize) -> Option<&Slot> {
        let valid = offset < CONFIG_SIZE && config_width(offset, len).is_some();
        let slot = self.places.get(place).filter(|_| valid)?.as_ref()?;
        self.slots.get(usize::from(*slot))
    }

    /// Bit 7 of the header type: set in all functions of a device that has several.
    fn multifunction_bit(&self, place: usize) -> u8 {
        let first = place & !7;
        let several = self.places[first + 1..first + 8]
            .iter()
            .any(Option::is_some);
        if several { MULTIFUNCTION } else { 0 }
    }

    fn at_address(
        &self,
        space: Space,
        address: u64,
        access: impl FnOnce(&mut dyn PciFunction, Region, u64),
    ) {
        let answers = |slot: &&Slot| slot.windows().find(space, address).is_some();
        let Some(slot) = self.slots.iter().find(answers) else {
            return;
        };
        self.with(slot, |function| {
            // Asked again under the lock: another vCPU may just have turned decode off.
            if let Some((region, offset)) = function.windows().find(space, address) {
                access(function, region, offset);
            }
        });
    }

    /// Runs `access` on the slot's function unless the guest's access has ended.
    fn with<R>(&self, slot: &Slot, access: impl FnOnce(&mut dyn PciFunction) -> R) -> Option<R> {
        let mut function = slot.lock();
        if self.stopped.load(Ordering::SeqCst) {
            return None;
        }
        let result = access(function.as_mut());
        slot.publish(function.as_ref());
        Some(result)
    }
}
