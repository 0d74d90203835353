// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a function's BARs have the addresses on its bus that its host bridge gives them.
//!
//! A host bridge may translate between the two. Sysfs has the CPU's addresses (`resource`), the
//! BARs hold the bus's (`config`). Where they differ otherwise than the caller knows, a device that is
//! given an address finds something else there.

use std::fs;
use std::io;

use address::{Bdf, BusAddr, Hpa};
use pci_config::regs::{
    BAR_MEMORY_ADDRESS, BAR0, BARS, EXT_CAP_SRIOV, HEADER_TYPE, HEADER_TYPE_LAYOUT, SRIOV_BAR0,
    SRIOV_FIRST_OFFSET, SRIOV_STRIDE,
};
use pci_config::{BarKind, find_extended_capability, word};

use crate::error::Error;
use crate::pci_sysfs::{PciSysfs, Resource};

/// A memory BAR with two addresses, of which one is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslatedBar {
    /// Its number.
    pub bar: usize,
    /// Where it begins on the bus.
    pub bus: BusAddr,
    /// Where it begins for the CPU.
    pub cpu: Hpa,
}

impl PciSysfs {
    /// The first memory BAR of `bdf` whose address on the bus is not what `expected` makes of the CPU's:
    /// [`BusAddr::identity`] where no host bridge translates.
    ///
    /// BARs without an address are left out, among them those that Enhanced Allocation replaces
    /// for, which read as 0 (PCI Express 6.0, 7.8.5), and so is all of a function that does not
    /// respond. The BARs of a virtual function are those of its physical one, which the caller can
    /// read with CAP_SYS_ADMIN only; without it they are left out as well.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`], [`Error::Parse`]
    pub fn translated_bar(
        &self,
        bdf: Bdf,
        expected: impl Fn(Hpa) -> BusAddr,
    ) -> Result<Option<TranslatedBar>, Error> {
        let resources = self.resources(bdf)?;
        let found = match self.physical_function(bdf)? {
            Some(physical) => {
                virtual_bars(&self.config_space(physical)?, physical, bdf, &resources)
            }
            None => function_bars(&self.config_space(bdf)?),
        };
        Ok(compare(found, &resources, expected))
    }

    /// The physical function to which `bdf` belongs, if it is a virtual one.
    fn physical_function(&self, bdf: Bdf) -> Result<Option<Bdf>, Error> {
        let path = self.directory(bdf)?.join("physfn");
        match fs::read_link(&path) {
            Ok(target) => {
                let name = target.file_name().and_then(|name| name.to_str());
                let physical = name.and_then(|name| name.parse().ok());
                physical.map(Some).ok_or_else(|| Error::Parse {
                    path,
                    found: target.display().to_string(),
                })
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}

/// What the memory BARs of a function hold; `None` for those that are not there or hold 0.
type Addresses = [Option<BusAddr>; BARS as usize];

fn compare(
    on_bus: Addresses,
    resources: &[Option<Resource>],
    expected: impl Fn(Hpa) -> BusAddr,
) -> Option<TranslatedBar> {
    let both = on_bus.into_iter().zip(resources).enumerate();
    both.filter_map(|(bar, (bus, resource))| {
        let (bus, cpu) = (bus?, resource.as_ref()?.address()?);
        (bus != expected(cpu)).then_some(TranslatedBar { bar, bus, cpu })
    })
    .next()
}

/// The BARs in the header of a device.
fn function_bars(config: &[u8]) -> Addresses {
    let header_type = config.get(usize::from(HEADER_TYPE));
    let is_device = header_type.is_some_and(|kind| kind & HEADER_TYPE_LAYOUT == 0);
    match is_device {
        true => addresses(config, BAR0),
        // 0x7f also where nothing responds; bridges are refused elsewhere.
        false => Addresses::default(),
    }
}

/// The BARs of the virtual function `bdf` by the SR-IOV capability of `physical`: each function's
/// follows that of the one before it.
fn virtual_bars(
    config: &[u8],
    physical: Bdf,
    bdf: Bdf,
    resources: &[Option<Resource>],
) -> Addresses {
    let Ok(sriov) = find_extended_capability(config, EXT_CAP_SRIOV);
    let found = sriov.and_then(|at| Some((at, index(config, at, physical, bdf)?)));
    let Some((at, index)) = found else {
        return Addresses::default();
    };
    let mut bars = addresses(config, at + SRIOV_BAR0);
    for (bar, resource) in bars.iter_mut().zip(resources) {
        let size = resource.map_or(0, |resource| resource.size);
        *bar = bar.and_then(|first| first.checked_add(index.checked_mul(size)?));
    }
    bars
}

/// Which of the virtual functions `bdf` is, from 0 on (PCI Express 6.0, 9.2.1.2).
fn index(config: &[u8], at: u16, physical: Bdf, bdf: Bdf) -> Option<u64> {
    let offset = word(config, at + SRIOV_FIRST_OFFSET)?;
    let first = u64::from(physical.routing_id()) + u64::from(offset);
    let beyond = u64::from(bdf.routing_id()).checked_sub(first)?;
    match u64::from(word(config, at + SRIOV_STRIDE)?) {
        0 => (beyond == 0).then_some(0),
        stride => beyond.is_multiple_of(stride).then_some(beyond / stride),
    }
}

/// What six BARs from `first` on hold (PCI Local Bus Specification 3.0, 6.2.5.1).
fn addresses(config: &[u8], first: u16) -> Addresses {
    let register = |bar: u8| {
        let at = first + 4 * u16::from(bar);
        let low = u32::from(word(config, at)?);
        Some(low | u32::from(word(config, at + 2)?) << 16)
    };
    let mut found = Addresses::default();
    let mut bar = 0;
    while bar < BARS {
        let low = register(bar).unwrap_or(0);
        let kind = BarKind::from_register(low);
        let is_wide = matches!(kind, BarKind::Memory64 { .. }) && bar + 1 < BARS;
        let high = is_wide.then(|| register(bar + 1)).flatten().unwrap_or(0);
        let address = u64::from(high) << 32 | u64::from(low & BAR_MEMORY_ADDRESS);
        found[usize::from(bar)] = (kind != BarKind::Io && address != 0).then_some(BusAddr(address));
        bar += 1 + u8::from(is_wide);
    }
    found
}

#[cfg(test)]
mod tests;
