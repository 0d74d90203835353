// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a simulated device consists of: the bytes of its config space and its regions.

use std::num::ParseIntError;
use std::ops::Range;

use address::Hpa;
use devices::pci::BarKind;
use devices::vfio_pci::{HostInfo, InterruptKind, PerKind, RegionInfo, Vectors};
use thiserror::Error;

const PAGE: u64 = 4096;

/// A dump that cannot be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A number is none.
    #[error("line {line}: {source}")]
    Number {
        /// Line, from 1.
        line: usize,
        /// Why.
        source: ParseIntError,
    },
    /// A line is neither a region nor bytes of config space nor its size (256 or 4096).
    #[error("line {line}: expected three numbers, '<offset>: <bytes>' or 'size: <bytes>'")]
    Line {
        /// Line, from 1.
        line: usize,
    },
}

/// A device that can be simulated.
#[derive(Clone, Debug)]
pub struct DeviceImage {
    /// Config space as VFIO shows it.
    pub config: Vec<u8>,
    /// The fixed facts, as [`HostFunction::info`](devices::vfio_pci::HostFunction::info) gives them.
    pub info: HostInfo,
}

impl DeviceImage {
    /// An endpoint without BARs and capabilities, with a config space of `size` bytes, one INTx
    /// vector, one MSI vector and as many MSI-X vectors as there can be.
    #[must_use]
    pub fn new(name: &str, size: u16) -> Self {
        let mut config = vec![0; size.into()];
        config[..4].copy_from_slice(&[0x34, 0x12, 0xcd, 0xab]);
        config[0x3d] = 1;
        Self {
            config,
            info: HostInfo {
                name: name.to_owned(),
                bars: Default::default(),
                rom: RegionInfo::default(),
                config_size: size,
                page_size: 4096,
                interrupts: PerKind::from_fn(|kind| match kind {
                    InterruptKind::Msix => Vectors::growing(2048),
                    _ => Vectors::fixed(1),
                }),
                resettable: true,
            },
        }
    }

    /// Reads a dump: seven lines with start, end and flags of a region, as sysfs' `resource`
    /// begins; lines `<offset>: <bytes>` of config space, as `lspci -x` writes them, where those
    /// that are missing are zero; and a line `size: <bytes>`. Lines that begin with `#` are
    /// comments.
    ///
    /// # Errors
    ///
    /// If a line has another form.
    pub fn parse(name: &str, text: &str) -> Result<Self, ImageError> {
        let mut image = Self::new(name, 4096);
        image.config.fill(0);
        let mut region = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let parsed = match line.split_once(": ") {
                _ if line.starts_with('#') => Ok(Some(())),
                Some(("size", size)) => size.parse().map(|size| image.set_size(size)),
                Some((offset, bytes)) => image.set_line(offset, bytes),
                None => {
                    region += 1;
                    image.set_resource(region - 1, line)
                }
            };
            let parsed = parsed.map_err(|source| ImageError::Number {
                line: number,
                source,
            })?;
            parsed.ok_or(ImageError::Line { line: number })?;
        }
        image.info.interrupts[InterruptKind::Intx].count = u16::from(image.config[0x3d] != 0);
        Ok(image)
    }

    fn set_size(&mut self, size: u16) -> Option<()> {
        self.info.config_size = size;
        self.config.truncate(size.into());
        matches!(size, 256 | 4096).then_some(())
    }

    fn set_line(&mut self, offset: &str, bytes: &str) -> Result<Option<()>, ParseIntError> {
        let offset = usize::from_str_radix(offset, 16)?;
        for (at, byte) in (offset..).zip(bytes.split_whitespace()) {
            let byte = u8::from_str_radix(byte, 16)?;
            let Some(place) = self.config.get_mut(at) else {
                return Ok(None);
            };
            *place = byte;
        }
        Ok(Some(()))
    }

    fn set_resource(&mut self, index: usize, line: &str) -> Result<Option<()>, ParseIntError> {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(number).collect();
        Ok(match numbers?.as_slice() {
            &[start, end, flags] => self.place_resource(index, start, end, flags),
            _ => None,
        })
    }

    /// Places region `index` (6 is the ROM) as a line of sysfs' `resource` describes it.
    fn place_resource(&mut self, index: usize, start: u64, end: u64, flags: u64) -> Option<()> {
        const IO: u64 = 0x100;
        if index > 6 || end == 0 {
            return Some(());
        }
        let size = end.checked_sub(start)?.checked_add(1)?;
        let io = flags & IO != 0;
        let region = RegionInfo {
            size,
            host_address: (!io).then_some(Hpa(start)),
            mappable: mappable(size, start, io),
        };
        match self.info.bars.get_mut(index) {
            Some(bar) => *bar = region,
            None => {
                self.info.rom = RegionInfo {
                    mappable: Vec::new(),
                    ..region
                }
            }
        }
        Some(())
    }

    /// Adds BAR `index`; what vfio-pci would let be mapped is mappable.
    #[must_use]
    pub fn bar(mut self, index: u8, kind: BarKind, size: u64, address: u64) -> Self {
        let io = kind == BarKind::Io;
        let flags: u64 = match kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => u64::from(prefetchable) << 3,
            BarKind::Memory64 { prefetchable } => 4 | u64::from(prefetchable) << 3,
        };
        let width = if matches!(kind, BarKind::Memory64 { .. }) {
            8
        } else {
            4
        };
        let at = 0x10 + 4 * usize::from(index);
        self.config[at..at + width].copy_from_slice(&(address | flags).to_le_bytes()[..width]);
        self.info.bars[usize::from(index)] = RegionInfo {
            size,
            host_address: (!io).then_some(Hpa(address)),
            mappable: mappable(size, address, io),
        };
        self
    }

    /// Returns which parts of BAR `index` can be mapped.
    #[must_use]
    pub fn mappable(mut self, index: u8, ranges: &[Range<u64>]) -> Self {
        self.info.bars[usize::from(index)].mappable = ranges.to_vec();
        self
    }

    /// Adds a ROM of `size` bytes at `address`.
    #[must_use]
    pub fn rom(mut self, size: u64, address: u64) -> Self {
        self.info.rom = RegionInfo {
            size,
            host_address: Some(Hpa(address)),
            mappable: Vec::new(),
        };
        self
    }

    /// Puts a capability at `offset` in front of the list; `bytes` follow its two header bytes.
    #[must_use]
    pub fn capability(mut self, offset: u8, id: u8, bytes: &[u8]) -> Self {
        let at = usize::from(offset);
        self.config[at] = id;
        self.config[at + 1] = self.config[0x34];
        self.config[at + 2..at + 2 + bytes.len()].copy_from_slice(bytes);
        self.config[0x34] = offset;
        self.config[0x06] |= 0x10;
        self
    }

    /// Puts an extended capability at `offset`; `bytes` follow its header, which points to
    /// `next`.
    #[must_use]
    pub fn extended(mut self, offset: u16, id: u16, next: u16, bytes: &[u8]) -> Self {
        let at = usize::from(offset);
        let header = u32::from(id) | 1 << 16 | u32::from(next) << 20;
        self.config[at..at + 4].copy_from_slice(&header.to_le_bytes());
        self.config[at + 4..at + 4 + bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// vfio-pci lets whole memory BARs be mapped that start on a page.
fn mappable(size: u64, address: u64, io: bool) -> Vec<Range<u64>> {
    if io || !address.is_multiple_of(PAGE) {
        Vec::new()
    } else {
        std::iter::once(0..size.next_multiple_of(PAGE)).collect()
    }
}
