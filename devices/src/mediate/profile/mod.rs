// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which registers of a device hold DMA addresses, and what is allowed to be in them.

mod direction;
mod error;
mod format;
mod problem;
mod registers;
mod roles;
mod transfer;
mod transfers;

pub use direction::Direction;
pub use error::{Invalid, ProfileError};
pub(super) use format::{Device, Otherwise, Partial, RefusalShown};
pub(super) use registers::{Alias, Kind, Port, RUN, Register, ones};
pub(super) use transfer::{Addresses, Directed, Length, Transfer};

use format::File;
use problem::{Problem, check_name, number, problem};

/// The profiles that come with the monitor and are picked by a device's IDs: their names, and the
/// text for [`Profile::parse`].
pub const SHIPPED: &[(&str, &str)] = &[("edu", include_str!("../../../profiles/edu.toml"))];

/// Profiles that come with the monitor too, for devices whose IDs are not sufficient to select
/// them: they have to be asked for by name.
pub const ON_REQUEST: &[(&str, &str)] = &[("edu64", include_str!("../../../profiles/edu64.toml"))];

/// Most bytes of a profile.
const LIMIT: usize = 64 << 10;

/// A device's registers as its profile describes them, checked.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    pub(super) devices: Vec<Device>,
    pub(super) refusal: RefusalShown,
    /// BARs whose unnamed bytes the guest reaches, although no other key opens them.
    pub(super) open_bars: Vec<u8>,
    pub(super) registers: Vec<Register>,
    pub(super) aliases: Vec<Alias>,
    pub(super) ports: Vec<Port>,
    pub(super) transfers: Vec<Transfer>,
}

impl Profile {
    /// Reads the profile `text`, which messages call `file`. `docs/reference/mediate.md` describes the
    /// format.
    ///
    /// # Errors
    ///
    /// [`ProfileError`], with the first thing that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        if text.len() > LIMIT {
            return Err(ProfileError::TooLarge {
                file: file.to_owned(),
                length: text.len(),
                limit: LIMIT,
            });
        }
        let parsed = toml::from_str(text).map_err(|source| ProfileError::Syntax {
            file: file.to_owned(),
            source,
        })?;
        Self::check(parsed).map_err(|Problem { key, reason }| ProfileError::Invalid {
            file: file.to_owned(),
            key,
            reason,
        })
    }

    /// The profile of this name that comes with the monitor, if there is one.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn shipped(name: &str) -> Result<Option<Self>, ProfileError> {
        let known = SHIPPED.iter().chain(ON_REQUEST);
        let found = known.into_iter().find(|(known, _)| *known == name);
        found
            .map(|(name, text)| Self::parse(name, text))
            .transpose()
    }

    /// The profile for the device with these IDs that is used unless another is asked for, if there is one.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn shipped_for(vendor: u16, device: u16) -> Result<Option<Self>, ProfileError> {
        for (name, text) in SHIPPED {
            let profile = Self::parse(name, text)?;
            if profile.is_for(vendor, device) {
                return Ok(Some(profile));
            }
        }
        Ok(None)
    }

    /// What the profile calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is for the device with these IDs.
    #[must_use]
    pub fn is_for(&self, vendor: u16, device: u16) -> bool {
        self.devices
            .iter()
            .any(|known| known.vendor == vendor && known.device == device)
    }

    fn check(file: File) -> Result<Self, Problem> {
        if file.version != 1 {
            let found = file.version;
            return Err(problem("version", Invalid::Version { found }));
        }
        check_name(&file.name).map_err(|reason| problem("name", reason))?;
        if file.descriptors_in_memory {
            return Err(problem("descriptors_in_memory", Invalid::Descriptors));
        }
        for (key, found, least, limit) in [
            ("devices", file.devices.len(), 1, 64),
            ("register", file.register.len(), 1, 64),
            ("alias", file.alias.len(), 0, 64),
            ("port", file.port.len(), 0, 8),
            ("transfer", file.transfer.len(), 1, 16),
        ] {
            if !(least..=limit).contains(&found) {
                return Err(problem(key, Invalid::Count { found, limit }));
            }
        }
        for bar in &file.open_bars {
            number(*bar < 6, (*bar).into(), "0 to 5").map_err(|e| problem("open_bars", e))?;
        }
        let mut registers = registers::check_registers(file.register)?;
        let aliases = registers::check_aliases(&file.alias)?;
        let ports = registers::check_ports(file.port)?;
        registers::check_overlap(&registers, &aliases, &ports)?;
        let transfers = transfers::check(file.transfer, file.refusal, &mut registers)?;
        Ok(Self {
            name: file.name,
            devices: file.devices,
            refusal: file.refusal,
            open_bars: file.open_bars,
            registers,
            aliases,
            ports,
            transfers,
        })
    }
}
