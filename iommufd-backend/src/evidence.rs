// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Evidence that a device has ended its DMA. Memory that it may access is released for nothing less
//! ([`NoiommuSpace::release`](crate::NoiommuSpace::release)).
//!
//! A device is quiet once its bus mastering reads back as off **and** a reset has succeeded. Bus
//! mastering alone is not enough: the device keeps its rings, and the next driver turns bus
//! mastering on before it resets. Two exceptions: the slot reports that no card is in it, and the
//! user has accepted a device without a reset (`reset=none`).

use std::fmt;
use std::thread;
use std::time::Duration;

use address::Bdf;
use pci_config::regs::{
    CAP_EXPRESS, CAP_PM, COMMAND, COMMAND_BUS_MASTER, EXP_DEVICE_STATUS, EXP_DEVICE_STATUS_PENDING,
    PM_CONTROL, PM_STATE,
};
use pci_config::{Words, find_capability};

use crate::config_space::ConfigSpace;
use crate::error::Error;
use crate::parallel::in_parallel;
use crate::reset::{self, ResetMethod, Resettable};

/// How long a function may take from D3hot to D0 (PCI Express Base Specification, section 5.9).
const POWER_UP: Duration = Duration::from_millis(10);

/// Why a device writes to memory no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its bus mastering reads back as off, and it was reset by this method.
    Reset(String),
    /// The slot that it was in reports that no card is there.
    Gone,
    /// Its bus mastering reads back as off, and its user has accepted that it cannot be reset.
    Accepted,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(method) => write!(f, "reset ({method})"),
            Self::Gone => f.write_str("removed from its slot"),
            Self::Accepted => f.write_str("not reset, as accepted; bus mastering is off"),
        }
    }
}

/// Evidence that one device has ended its DMA. Only this crate makes it, and it cannot be copied. Between processes it is
/// [`vouched for`](Self::vouched_for).
#[derive(Debug, PartialEq, Eq)]
pub struct Quiet {
    bdf: Bdf,
    because: Because,
}

impl Quiet {
    /// The device.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// What the evidence is.
    #[must_use]
    pub fn because(&self) -> &Because {
        &self.because
    }

    /// The evidence that another process of this program has, which made it by [`settle`](crate::settle()) and must be
    /// trusted as this one: the keeper, which has privileges that a running monitor has not.
    #[must_use]
    pub fn vouched_for(bdf: Bdf, because: Because) -> Self {
        Self::new(bdf, because)
    }

    pub(crate) fn new(bdf: Bdf, because: Because) -> Self {
        Self { bdf, because }
    }
}

/// Ends all DMA of `functions` for good, each reset by its method: D0, bus mastering off, nothing
/// under way, reset, bus mastering off again, since a reset may bring COMMAND back as it was.
/// By then the guest must not be able to turn bus mastering on again.
///
/// All functions at once. One result for each, in order; a failure does not keep the others from being tried.
pub fn quiesce<F: Resettable + Sync>(
    functions: &[(&F, &ResetMethod)],
) -> Vec<Result<Quiet, Error>> {
    let stopped = in_parallel(functions, |(function, _)| stop(*function));
    let resets = reset::reset_each(functions);
    let both = stopped.into_iter().zip(resets);
    let confirmed = functions
        .iter()
        .zip(both)
        .map(|((function, method), (stopped, reset))| {
            stopped.and(reset).and_then(|()| confirm(*function))?;
            let because = match method {
                ResetMethod::None { .. } => Because::Accepted,
                method => Because::Reset(method.to_string()),
            };
            Ok(Quiet::new(function.bdf(), because))
        });
    confirmed.collect()
}

/// Stops DMA: to D0, where COMMAND counts, and out of D3hot before a reset would do it and restore
/// the COMMAND of that time; then bus mastering off; then waits for what is under way.
pub(crate) fn stop(function: &impl ConfigSpace) -> Result<(), Error> {
    power_up(function)?;
    bus_master_off(function)?;
    wait_for_transactions(function)
}

/// That bus mastering is off, after a reset.
pub(crate) fn confirm(function: &impl ConfigSpace) -> Result<(), Error> {
    bus_master_off(function)
}

/// Whether the function's COMMAND reads as all ones, as if nothing were there.
pub(crate) fn is_silent(function: &impl ConfigSpace) -> Result<bool, Error> {
    Ok(function.config_word(COMMAND)? == u16::MAX)
}

fn power_up(function: &impl ConfigSpace) -> Result<(), Error> {
    let Some(power) = capability(function, CAP_PM)? else {
        return Ok(());
    };
    let control = function.config_word(power + PM_CONTROL)?;
    if control & PM_STATE != 0 && control != u16::MAX {
        function.set_config_word(power + PM_CONTROL, control & !PM_STATE)?;
        thread::sleep(POWER_UP);
    }
    Ok(())
}

/// Turns bus mastering off and reads back that it is. The read also makes sure that what the
/// function wrote before has arrived (PCI ordering: a completion pushes posted writes).
fn bus_master_off(function: &impl ConfigSpace) -> Result<(), Error> {
    let unusable = |reason: &str| Error::DeviceUnusable {
        bdf: function.bdf(),
        reason: reason.into(),
    };
    let command = function.config_word(COMMAND)?;
    if command == u16::MAX {
        return Err(unusable("it does not respond: its registers read as ones"));
    }
    function.set_config_word(COMMAND, command & !COMMAND_BUS_MASTER)?;
    if function.config_word(COMMAND)? & COMMAND_BUS_MASTER != 0 {
        return Err(unusable("its bus mastering cannot be disabled"));
    }
    log::debug!("{}: bus mastering is off", function.bdf());
    Ok(())
}

/// Waits until the function's Transactions Pending bit is clear, for as long as the PCI
/// specification gives a function for that before a reset (100 ms), times two.
fn wait_for_transactions(function: &impl ConfigSpace) -> Result<(), Error> {
    let Some(express) = capability(function, CAP_EXPRESS)? else {
        return Ok(());
    };
    for _ in 0..20 {
        let status = function.config_word(express + EXP_DEVICE_STATUS)?;
        // All ones: the function is gone from the bus.
        if status & EXP_DEVICE_STATUS_PENDING == 0 || status == u16::MAX {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    log::warn!(
        "{}: transactions are still pending 200 ms after bus mastering went off",
        function.bdf()
    );
    Ok(())
}

/// Offset of the capability `id`, if there is one.
pub(crate) fn capability(function: &impl ConfigSpace, id: u8) -> Result<Option<u16>, Error> {
    find_capability(Words(|at| function.config_word(at)), id)
}

#[cfg(test)]
pub(crate) mod tests;
