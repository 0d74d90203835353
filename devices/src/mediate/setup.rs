// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Set-up of a mediated function before the guest runs.

use std::ops::Range;

use pci_config::regs::{
    CAP_EXPRESS, CAP_MSIX, CAP_PM, CONVENTIONAL_CONFIG_SIZE, EXP_DEVICE_CONTROL, MSIX_TABLE,
    PM_CONTROL,
};
use pci_config::{Capability, Dwords, capabilities};
use thiserror::Error;

use crate::pci::{MsixLayout, Placement};
use crate::vfio_pci::layout::{pages_around, without};
use crate::vfio_pci::{HostError, HostFunction, HostInfo};

use super::error_reporting::ErrorReporting;
use super::profile::Profile;

/// A device that cannot be mediated with a profile.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The profile is for other devices.
    #[error("{device}: the profile {profile:?} is not for this device, {vendor:04x}:{id:04x}")]
    OtherDevice {
        /// The device.
        device: String,
        /// The profile's name.
        profile: String,
        /// The device's vendor ID.
        vendor: u16,
        /// The device's device ID.
        id: u16,
    },
    /// A register of the profile is outside of the device's BAR.
    #[error(
        "{device}: {what} of the profile {profile:?} ends at {end:#x} of BAR {bar}, which has \
         {size:#x} bytes"
    )]
    Outside {
        /// The device.
        device: String,
        /// The profile's name.
        profile: String,
        /// The register, alias or port.
        what: String,
        /// Which BAR.
        bar: u8,
        /// End of the register.
        end: u64,
        /// Bytes of the BAR; 0 if there is none.
        size: u64,
    },
    /// Config space cannot be read.
    #[error("{device}: cannot read config space at {offset:#x}")]
    Config {
        /// The device.
        device: String,
        /// Where.
        offset: u16,
        /// Why.
        source: HostError,
    },
}

/// What the guest may write in config space, and must not in the BARs.
#[derive(Debug)]
pub(super) struct Found {
    /// Config space that can be written behind the header.
    pub writable: Vec<Range<u16>>,
    pub msix_table: Option<Placement>,
    pub reporting: ErrorReporting,
}

/// Checks that `profile` fits the device.
pub(super) fn check<H: HostFunction>(host: &mut H, profile: &Profile) -> Result<(), SetupError> {
    let [vendor_low, vendor_high, id_low, id_high] = read(host, 0)?;
    let vendor = u16::from_le_bytes([vendor_low, vendor_high]);
    let id = u16::from_le_bytes([id_low, id_high]);
    let known = |known: &super::profile::Device| known.vendor == vendor && known.device == id;
    let device = host.info().name.clone();
    let name = || profile.name().to_owned();
    if !profile.devices.iter().any(known) {
        return Err(SetupError::OtherDevice {
            device,
            profile: name(),
            vendor,
            id,
        });
    }
    for (what, bar, range) in profile.places() {
        let size = host
            .info()
            .bars
            .get(usize::from(bar))
            .map_or(0, |bar| bar.size);
        if range.end > size {
            let end = range.end;
            let profile = name();
            return Err(SetupError::Outside {
                device,
                profile,
                what,
                bar,
                end,
                size,
            });
        }
    }
    Ok(())
}

/// Looks through the capabilities.
pub(super) fn find<H: HostFunction>(host: &mut H) -> Result<Found, SetupError> {
    let mut found = Found {
        writable: Vec::new(),
        msix_table: None,
        reporting: ErrorReporting::default(),
    };
    let list = capabilities(Dwords(|at| read(host, at).map(u32::from_le_bytes)));
    let list: Vec<_> = list.collect::<Result<_, _>>()?;
    for Capability { id, offset: at, .. } in list {
        let mut allow = |register: u16, length: u16| {
            let start = at + register;
            if start + length <= CONVENTIONAL_CONFIG_SIZE {
                found.writable.push(start..start + length);
            }
        };
        match u8::try_from(id) {
            Ok(CAP_PM) => allow(PM_CONTROL, 2),
            Ok(CAP_EXPRESS) => {
                allow(EXP_DEVICE_CONTROL, 2);
                let register = at + EXP_DEVICE_CONTROL;
                if register < CONVENTIONAL_CONFIG_SIZE {
                    let [control, ..] = read(host, register)?;
                    found.reporting.keep(register, control);
                }
            }
            Ok(CAP_MSIX) if at + 8 <= CONVENTIONAL_CONFIG_SIZE => {
                let dwords = [read(host, at)?, read(host, at + MSIX_TABLE)?, [0; 4]];
                let layout = MsixLayout::parse(dwords.map(u32::from_le_bytes));
                found.msix_table = Some(layout.table);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn read<H: HostFunction>(host: &mut H, offset: u16) -> Result<[u8; 4], SetupError> {
    let mut dword = [0; 4];
    match host.config_read(offset, &mut dword) {
        Ok(()) => Ok(dword),
        Err(source) => Err(SetupError::Config {
            device: host.info().name.clone(),
            offset,
            source,
        }),
    }
}

/// `info` without the pages that have to trap, and those pages. Nothing of a closed BAR can be
/// mapped; `msix` is the BAR with the MSI-X table.
pub(super) fn trim(
    mut info: HostInfo,
    profile: &Profile,
    msix: Option<u8>,
) -> (HostInfo, Vec<(u8, Range<u64>)>) {
    let mut trapped = Vec::new();
    let places = profile.places();
    let page = info.page_size;
    let places = places.map(|(_, bar, range)| (bar, pages_around(&range, page)));
    let closed = (0..).zip(profile.closed_bars(msix));
    let closed = closed.filter_map(|(bar, closed)| closed.then_some((bar, 0..u64::MAX)));
    for (bar, pages) in places.chain(closed) {
        if let Some(region) = info.bars.get_mut(usize::from(bar)) {
            let parts = region
                .mappable
                .iter()
                .flat_map(|range| without(range, &pages));
            region.mappable = parts.filter(|range| range.start < range.end).collect();
        }
        trapped.push((bar, pages));
    }
    (info, trapped)
}

impl Profile {
    /// Which BARs are closed: those that the profile does not mention, in which there may be
    /// anything, and the one with the MSI-X table (`msix`), which there may be twice. `open_bars`
    /// opens them.
    pub(super) fn closed_bars(&self, msix: Option<u8>) -> [bool; 6] {
        let selected = self.ports.iter().map(|port| port.to_bar);
        let mentioned: Vec<u8> = self
            .places()
            .map(|(_, bar, _)| bar)
            .chain(selected)
            .collect();
        [0, 1, 2, 3, 4, 5].map(|bar| {
            let closed = !mentioned.contains(&bar) || msix == Some(bar);
            closed && !self.open_bars.contains(&bar)
        })
    }

    /// All that is not the guest's to map: how messages call it, its BAR and its bytes.
    fn places(&self) -> impl Iterator<Item = (String, u8, Range<u64>)> {
        let registers = self.registers.iter().flat_map(|register| {
            let what = format!("register {:?}", register.name);
            let spans = register.spans.iter();
            spans.map(move |span| (what.clone(), register.bar, span.range()))
        });
        let aliases = (1..).zip(&self.aliases).flat_map(|(at, alias)| {
            let length = alias.range.end - alias.range.start;
            let target = alias.to_offset..alias.to_offset + length;
            [
                (format!("alias {at}"), alias.bar, alias.range.clone()),
                (format!("the target of alias {at}"), alias.to_bar, target),
            ]
        });
        let ports = (1..).zip(&self.ports).flat_map(|(at, port)| {
            [("index", &port.index), ("data", &port.data)].map(|(part, place)| {
                (
                    format!("the {part} of port {at}"),
                    place.bar,
                    place.range.clone(),
                )
            })
        });
        registers.chain(aliases).chain(ports)
    }
}
