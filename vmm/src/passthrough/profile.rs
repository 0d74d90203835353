// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register profile by which a device is mediated.

use address::Bdf;
use devices::mediate::{Profile, SetupError};
use iommufd_backend::PciSysfs;

use crate::bus::BusError;
use crate::error::Error;

/// The profile of the device `bdf`: the one that it was `given`, which must be for it, or the shipped one.
///
/// # Errors
/// `no-profile`, `mediate`; `read` and `parse` if sysfs does not show the device's IDs.
pub fn profile_for(sysfs: &PciSysfs, bdf: Bdf, given: Option<Profile>) -> Result<Profile, Error> {
    let number = |name| {
        let id = sysfs.number(bdf, name)?;
        Ok::<_, Error>(u16::try_from(id).unwrap_or(u16::MAX))
    };
    let (vendor, device) = (number("vendor")?, number("device")?);
    let Some(profile) = given else {
        let none = BusError::NoProfile {
            bdf,
            vendor,
            device,
        };
        return Profile::shipped_for(vendor, device)?.ok_or(none.into());
    };
    if !profile.is_for(vendor, device) {
        let error = SetupError::OtherDevice {
            device: bdf.to_string(),
            profile: profile.name().to_owned(),
            vendor,
            id: device,
        };
        return Err(BusError::from(error).into());
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_profile_is_refused_by_what_sysfs_shows_of_the_device() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("bus/pci/devices/0000:01:00.0");
        fs::create_dir_all(&function).unwrap();
        let sysfs = PciSysfs::at(root.path());
        let known = |vendor: &str, device: &str| {
            fs::write(function.join("vendor"), vendor).unwrap();
            fs::write(function.join("device"), device).unwrap();
        };
        let found = |given: Option<&str>| {
            let given = given.and_then(|name| Profile::shipped(name).unwrap());
            let found = profile_for(&sysfs, "01:00.0".parse().unwrap(), given);
            found
                .map(|profile| profile.name().to_owned())
                .map_err(|error| error.id())
        };
        assert_eq!(found(None), Err("read"));
        known("0x1234\n", "0x11e8\n");
        assert_eq!(found(None), found(Some("edu")));
        assert!(found(Some("edu64")).is_ok());
        known("0x8086\n", "0x10d3\n");
        assert_eq!(found(None), Err("no-profile"));
        assert_eq!(found(Some("edu")), Err("mediate"));
    }
}
