// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Assigns slots of the guest's bus to devices.

use address::Bdf;

use crate::error::explain::{ExitCode, Explain, Limits};

/// First slot for devices; slot 0 is the host bridge's.
const FIRST_SLOT: u8 = 1;
/// Slots for devices; the last one of the bus is kept for the DMA window.
pub const MAX_SLOTS: usize = 30;
/// The last slot of the bus.
pub const LAST_SLOT: u8 = 31;

/// More devices than a bus has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} devices were named, but a guest's PCI bus has slots for only {most}")]
pub struct TooManyDevices {
    /// Devices named.
    pub count: usize,
    /// Slots for them.
    pub most: usize,
}

impl Explain for TooManyDevices {
    fn ids() -> Vec<&'static str> {
        vec!["too-many-devices"]
    }

    fn id(&self) -> &'static str {
        "too-many-devices"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }

    fn hint(&self, _: Limits) -> Option<String> {
        Some("use fewer --device options, or several guests".to_owned())
    }
}

/// A place on the guest's bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot {
    /// Device number, 1 to 30.
    pub slot: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// Places for `devices` in their order: functions of one device on the host are functions of one
/// device in the guest, the first of them function 0, as the bus requires. `None` if there are too
/// few slots.
#[must_use]
pub fn assign(devices: &[Bdf]) -> Option<Vec<PciSlot>> {
    let slot_of = |bdf: &Bdf| (bdf.domain(), bdf.bus(), bdf.device());
    let mut slots = Vec::new();
    for bdf in devices {
        if !slots.contains(&slot_of(bdf)) {
            slots.push(slot_of(bdf));
        }
    }
    if slots.len() > MAX_SLOTS {
        return None;
    }
    let place = |bdf: &Bdf| {
        let slot = slots.iter().position(|slot| *slot == slot_of(bdf))?;
        // Siblings with a lower number come first.
        let before =
            |other: &&Bdf| slot_of(other) == slot_of(bdf) && other.function() < bdf.function();
        Some(PciSlot {
            slot: FIRST_SLOT + u8::try_from(slot).ok()?,
            function: u8::try_from(devices.iter().filter(before).count()).ok()?,
        })
    };
    devices.iter().map(place).collect()
}

/// The first slot behind those of `devices`.
#[must_use]
pub fn next_slot<'a>(devices: impl IntoIterator<Item = &'a PciSlot>) -> u8 {
    let last = devices.into_iter().map(|place| place.slot).max();
    last.map_or(FIRST_SLOT, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_of(names: &[&str]) -> Option<Vec<(u8, u8)>> {
        let devices: Vec<Bdf> = names.iter().map(|name| name.parse().unwrap()).collect();
        let pairs = |places: Vec<PciSlot>| places.iter().map(|p| (p.slot, p.function)).collect();
        assign(&devices).map(pairs)
    }

    #[test]
    fn devices_have_slots_and_siblings_share_one() {
        assert_eq!(
            places_of(&["01:00.0", "02:00.1", "03:00.0", "02:00.3"]),
            Some(vec![(1, 0), (2, 0), (3, 0), (2, 1)])
        );
        assert_eq!(
            places_of(&["02:00.3", "02:00.0"]),
            Some(vec![(1, 1), (1, 0)])
        );
    }

    #[test]
    fn slots_run_out() {
        let names: Vec<_> = (1..=30).map(|bus| format!("{bus:02x}:00.0")).collect();
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(places_of(&names).unwrap()[29], (30, 0));
        names.push("20:00.0");
        assert_eq!(places_of(&names), None);
    }
}
