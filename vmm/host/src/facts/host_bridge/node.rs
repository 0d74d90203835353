// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A node of the kernel's device tree: a directory, whose files are properties.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use address::Bdf;

use super::range::{AddressRange, Widths};
use crate::sys_root::SysRoot;

/// Where the tree is.
const TREE: &str = "sys/firmware/devicetree/base";
/// More bytes than a property of a bridge has.
const MAX_LEN: u64 = 1 << 16;
/// The property for memory that devices access.
pub(super) const DMA_RANGES: &str = "dma-ranges";
/// Deeper than any tree of a board.
const MAX_DEPTH: usize = 16;

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The root of the tree.
    tree: PathBuf,
    path: PathBuf,
}

impl Node {
    /// The node of the host bridge that `bdf` is behind: that of the nearest device above the root bus which has one.
    pub fn of_host_bridge(root: &SysRoot, bdf: Bdf) -> Option<Self> {
        let tree = root.real(TREE)?;
        let function = root.function(bdf)?;
        let is_root_bus = |path: &&Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("pci") && name.contains(':'))
        };
        let above = function.ancestors().skip_while(|path| !is_root_bus(path));
        let path = above
            .filter_map(|path| fs::canonicalize(path.join("of_node")).ok())
            .next()?;
        path.starts_with(&tree).then_some(Self { tree, path })
    }

    /// This node and those that it is in, from it upwards.
    pub fn and_parents(&self) -> impl Iterator<Item = Self> {
        let paths = self.path.ancestors().take(MAX_DEPTH);
        let inside = paths.take_while(|path| path.starts_with(&self.tree));
        inside.map(|path| Self {
            tree: self.tree.clone(),
            path: path.to_owned(),
        })
    }

    /// The file of the property `name`.
    pub fn property(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether devices in it see what is in the CPU's caches (`of_dma_is_coherent`).
    pub fn is_coherent(&self) -> bool {
        self.and_parents()
            .find_map(|node| {
                let has = |name| node.property(name).exists();
                match (has("dma-coherent"), has("dma-noncoherent")) {
                    (true, _) => Some(true),
                    (false, true) => Some(false),
                    (false, false) => None,
                }
            })
            .unwrap_or(false)
    }

    /// The entries of `name`, `ranges` or `dma-ranges`, with addresses of the CPU's; `None` without the property. Those of
    /// `dma-ranges` that the CPU has no address for are left out (`of_dma_get_range`).
    ///
    /// # Errors
    /// The property that makes no sense.
    pub fn ranges(&self, name: &str) -> Result<Option<Vec<AddressRange>>, PathBuf> {
        let malformed = || self.property(name);
        let Some(bytes) = self.bytes(name).map_err(|()| malformed())? else {
            return Ok(None);
        };
        // The root has no parent whose addresses could differ.
        let Some(parent) = self.parent() else {
            return Ok(None);
        };
        let widths = Widths {
            bus: self.cells("#address-cells", 2),
            cpu: parent.cells("#address-cells", 2),
            len: self.cells("#size-cells", 1),
        };
        let mut ranges = Vec::new();
        for range in widths.read(&bytes).ok_or_else(malformed)? {
            match parent.to_cpu(range.cpu, name) {
                Some(cpu) => ranges.push(AddressRange { cpu, ..range }),
                None if name == DMA_RANGES => {}
                None => return Err(malformed()),
            }
        }
        // Nothing is left of entries that were there.
        match ranges.is_empty() && !bytes.is_empty() {
            true => Err(malformed()),
            false => Ok(Some(ranges)),
        }
    }

    /// The CPU's address for `address` in this node: each node on the way up may translate it by its own property `name`
    /// (`of_translate_address`, `of_translate_dma_address`).
    fn to_cpu(&self, address: u64, name: &str) -> Option<u64> {
        let mut address = address;
        for node in self.and_parents() {
            let (Some(parent), Ok(Some(bytes))) = (node.parent(), node.bytes(name)) else {
                continue;
            };
            if bytes.is_empty() {
                continue;
            }
            let widths = Widths {
                bus: node.cells("#address-cells", 2),
                cpu: parent.cells("#address-cells", 2),
                len: node.cells("#size-cells", 1),
            };
            let ranges = widths.read(&bytes)?;
            address = ranges.iter().find_map(|range| range.translate(address))?;
        }
        Some(address)
    }

    fn parent(&self) -> Option<Self> {
        self.and_parents().nth(1)
    }

    /// The number in `name`; `default` where the node does not say.
    fn cells(&self, name: &str, default: usize) -> usize {
        let bytes = self.bytes(name).ok().flatten();
        let word = bytes.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        word.and_then(|word| usize::try_from(u32::from_be_bytes(word)).ok())
            .unwrap_or(default)
    }

    /// The bytes of the property `name`, if the node has it.
    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, ()> {
        let path = self.property(name);
        if !path.exists() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
        read.map(|_| Some(bytes)).map_err(drop)
    }
}
