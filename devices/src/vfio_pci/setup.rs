// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Set-up of a function before the guest runs.

use address::{Gpa, Hpa};
use pci_config::regs::{
    BAR0, BARS, CONFIG_SIZE, CONVENTIONAL_CONFIG_SIZE, HEADER_TYPE, HEADER_TYPE_LAYOUT, VENDOR_NONE,
};
use thiserror::Error;

use crate::pci::{Bar, BarError, BarKind, Bars, BusWindows};

use super::host::{HostError, HostFunction, HostInfo};
use super::report::Reporter;

/// A device that cannot be shown to a guest.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Its config space cannot be accessed.
    #[error("{device}: cannot read config space from {offset:#x} on")]
    Config {
        /// The device.
        device: String,
        /// Where the access began.
        offset: u16,
        /// Why.
        source: HostError,
    },
    /// Config space is neither 256 nor 4096 bytes.
    #[error("{device}: the host reports a config space of {size} bytes (expected 256 or 4096)")]
    ConfigSize {
        /// The device.
        device: String,
        /// Bytes as the host has it.
        size: u16,
    },
    /// It does not answer.
    #[error("{device}: the device does not respond (its vendor ID reads as 0xffff)")]
    Silent {
        /// The device.
        device: String,
    },
    /// It is a bridge.
    #[error("{device}: it is a bridge (header type {header_type}), which cannot be passed through")]
    NotEndpoint {
        /// The device.
        device: String,
        /// Type in its header; 0 is an endpoint.
        header_type: u8,
    },
}

/// Reads the whole config space, as dwords.
pub(super) fn read_config<H: HostFunction>(host: &mut H) -> Result<Vec<u32>, SetupError> {
    let size = host.info().config_size;
    let device = host.info().name.clone();
    if ![CONVENTIONAL_CONFIG_SIZE, CONFIG_SIZE].contains(&size) {
        return Err(SetupError::ConfigSize { device, size });
    }
    let mut bytes = vec![0; size.into()];
    if let Err(source) = host.config_read_all(&mut bytes) {
        return Err(SetupError::Config {
            device,
            offset: 0,
            source,
        });
    }
    let (dwords, _) = bytes.as_chunks();
    let config: Vec<_> = dwords
        .iter()
        .map(|dword| u32::from_le_bytes(*dword))
        .collect();
    if config[0] & 0xffff == u32::from(VENDOR_NONE) {
        return Err(SetupError::Silent { device });
    }
    let register = config[usize::from(HEADER_TYPE / 4)].to_le_bytes();
    match register[usize::from(HEADER_TYPE % 4)] & HEADER_TYPE_LAYOUT {
        0 => Ok(config),
        header_type => Err(SetupError::NotEndpoint {
            device,
            header_type,
        }),
    }
}

/// The BARs that the guest gets: those that the host has placed.
pub(super) fn build_bars(
    info: &HostInfo,
    config: &[u32],
    windows: &BusWindows,
    reporter: &mut Reporter,
) -> Bars {
    // The guest's bus has the windows of the host's.
    let on_bus = |address: Hpa| Some(windows.to_bus(Gpa(address.0))?.0);
    let mut bars = Bars::default();
    for index in 0..BARS {
        let region = &info.bars[usize::from(index)];
        if region.size == 0 {
            continue;
        }
        let register = config[usize::from(BAR0 / 4) + usize::from(index)];
        let kind = BarKind::from_register(register);
        let home = match kind {
            BarKind::Io => Some(u64::from(register & 0xfffc)),
            BarKind::Memory32 { .. } | BarKind::Memory64 { .. } => {
                region.host_address.and_then(on_bus)
            }
        };
        let Some(home) = home else {
            reporter.warn(format_args!(
                "BAR {index} has no address on the host and is hidden from the guest"
            ));
            continue;
        };
        let added = Bar::new(kind, region.size, home).and_then(|bar| bars.insert(index, bar));
        if let Err(error) = added {
            reporter.warn(format_args!(
                "BAR {index} is hidden from the guest: {error}"
            ));
        }
    }
    if let Err(error) = add_rom(info, on_bus, &mut bars) {
        reporter.warn(format_args!("the ROM is hidden from the guest: {error}"));
    }
    bars
}

fn add_rom(
    info: &HostInfo,
    on_bus: impl Fn(Hpa) -> Option<u64>,
    bars: &mut Bars,
) -> Result<(), BarError> {
    let address = info.rom.host_address.and_then(on_bus).unwrap_or(0);
    match info.rom.size {
        0 => Ok(()),
        // Accesses to the ROM are trapped, so any size that the register can express will do.
        size => bars.set_rom(size.max(0x800), address),
    }
}
