// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The registers: what a load gives and a store does.

use super::{Identity, Layout};
use crate::bits::{high32, join32, low32};
use crate::guest::Doorbell;
use crate::spec::PAGE;
use crate::spec::registers::{ACQ, AQA, ASQ, CAP, CC, CRTO, CSTS, Configuration, VS};

/// AQA: both sizes, 0's based.
const SIZES: u32 = 0x0fff_0fff;

/// What the guest has stored: kept until the function is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// CC.
    pub configuration: Configuration,
    /// AQA.
    pub admin_sizes: u32,
    /// ASQ.
    pub admin_submissions: u64,
    /// ACQ.
    pub admin_completions: u64,
}

/// What the guest has stored since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The registers now.
    pub control: Control,
    /// CC.EN was cleared meanwhile, whatever it is now.
    pub was_disabled: bool,
}

/// What the guest is shown in CSTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// RDY.
    pub is_ready: bool,
    /// CFS.
    pub is_fatal: bool,
    /// SHST.
    pub shutdown: u32,
    /// PP.
    pub is_paused: bool,
}

impl Shown {
    /// CSTS; NSSRO and what follows are 0.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.is_ready)
            | u32::from(self.is_fatal) << 1
            | (self.shutdown & 3) << 2
            | u32::from(self.is_paused) << 5
    }
}

/// What a store asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Nothing.
    Nothing,
    /// CC has changed: the controller is to look.
    Control,
    /// A doorbell, with this value.
    Doorbell(Doorbell, u32),
}

/// The registers of one controller.
///
/// Aligned accesses of 4 bytes are served, and of 8 bytes on CAP, ASQ and ACQ, whose halves may be accessed in any order;
/// doorbells take stores of 4 bytes. Others read as 0 and are dropped, as everything is that is not listed: the memory
/// buffers' registers, boot partitions, subsystem reset and shutdown, interrupt masks, and vendors'.
#[derive(Clone, Debug)]
pub struct Registers {
    identity: Identity,
    layout: Layout,
    control: Control,
    shown: Shown,
    is_changed: bool,
    was_disabled: bool,
}

impl Registers {
    /// The registers at power-on.
    #[must_use]
    pub fn new(identity: Identity, layout: Layout) -> Self {
        Self {
            identity,
            layout,
            control: Control::default(),
            shown: Shown::default(),
            is_changed: false,
            was_disabled: false,
        }
    }

    /// The function was reset: as at power-on. The controller is reset apart from this.
    pub fn reset(&mut self) {
        *self = Self::new(self.identity, self.layout);
    }

    /// Where things are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What CSTS shows from now on.
    pub fn show(&mut self, shown: Shown) {
        self.shown = shown;
    }

    /// What has changed in CC since the last call, with the queues' registers as they are now.
    pub fn take_change(&mut self) -> Option<Change> {
        let was_disabled = std::mem::take(&mut self.was_disabled);
        let control = self.control;
        std::mem::take(&mut self.is_changed).then_some(Change {
            control,
            was_disabled,
        })
    }

    /// A load at an offset of BAR0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((register, is_wide)) = access(offset, data.len()) else {
            return;
        };
        let low = self.dword(register);
        let high = if is_wide { self.dword(register + 4) } else { 0 };
        let bytes = join32(low, high).to_le_bytes();
        data.copy_from_slice(&bytes[..data.len()]);
    }

    /// A store at an offset of BAR0.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Store {
        if let (Some(doorbell), &[a, b, c, d]) = (self.layout.doorbell_at(offset), data) {
            return Store::Doorbell(doorbell, u32::from_le_bytes([a, b, c, d]));
        }
        let Some((register, is_wide)) = access(offset, data.len()) else {
            return Store::Nothing;
        };
        let value = crate::bits::word64(&padded(data), 0);
        if !is_wide {
            return self.set_dword(register, low32(value));
        }
        self.set_dword(register, low32(value));
        self.set_dword(register + 4, high32(value))
    }

    fn dword(&self, register: u32) -> u32 {
        let cap = self.identity.cap(self.layout.stride());
        let control = &self.control;
        match register {
            CAP => low32(cap),
            0x04 => high32(cap),
            VS => self.identity.version.0,
            CC => control.configuration.0,
            CSTS => self.shown.bits(),
            AQA => control.admin_sizes,
            ASQ => low32(control.admin_submissions),
            0x2c => high32(control.admin_submissions),
            ACQ => low32(control.admin_completions),
            0x34 => high32(control.admin_completions),
            CRTO => self.identity.ready_timeouts,
            _ => 0,
        }
    }

    fn set_dword(&mut self, register: u32, value: u32) -> Store {
        let control = &mut self.control;
        match register {
            CC => return self.set_configuration(Configuration(value)),
            AQA => control.admin_sizes = value & SIZES,
            ASQ => set_low(&mut control.admin_submissions, value),
            0x2c => set_high(&mut control.admin_submissions, value),
            ACQ => set_low(&mut control.admin_completions, value),
            0x34 => set_high(&mut control.admin_completions, value),
            _ => {}
        }
        Store::Nothing
    }

    fn set_configuration(&mut self, new: Configuration) -> Store {
        let old = std::mem::replace(&mut self.control.configuration, new);
        if old == new {
            return Store::Nothing;
        }
        self.is_changed = true;
        self.was_disabled |= old.is_enabled() && !new.is_enabled();
        Store::Control
    }
}

/// The register of an access that is served, and whether it has 8 bytes.
fn access(offset: u64, length: usize) -> Option<(u32, bool)> {
    let register = u32::try_from(offset)
        .ok()
        .filter(|at| u64::from(*at) < PAGE)?;
    match length {
        4 if register.is_multiple_of(4) => Some((register, false)),
        8 if matches!(register, CAP | ASQ | ACQ) => Some((register, true)),
        _ => None,
    }
}

fn padded(data: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    for (place, byte) in bytes.iter_mut().zip(data) {
        *place = *byte;
    }
    bytes
}

/// Bits 11:0 of a queue's address are reserved, and read as 0.
fn set_low(register: &mut u64, value: u32) {
    let page = low32(PAGE);
    *register = join32(value & !(page - 1), high32(*register));
}

fn set_high(register: &mut u64, value: u32) {
    *register = join32(low32(*register), value);
}
