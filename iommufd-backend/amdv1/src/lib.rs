// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I/O page tables in AMD's v1 (host) format.
//!
//! The format is the one that Linux keeps for a device in noiommu mode (`generic_pt`,
//! `drivers/iommu/generic_pt/fmt/amdv1.h`): a radix tree over 64-bit addresses with every page size
//! from 4 KiB to 2 PiB but 512 GiB. Here it is a plain data structure: no hardware walks these
//! tables, but anything that implements the format can.
//!
//! - [`pte`] reads and writes single entries, [`level`] holds the geometry of the tree.
//! - [`Table`] builds: maps with the largest entries that fit, unmaps, grows, translates.
//! - [`walk`] reads tables that are not trusted, without allocation or recursion; a guest
//!   that sees a table in a device's memory uses this part alone.
//! - [`memory`] defines where tables are stored: on the heap, or in pages with their own addresses.
//!
//! ```
//! use address::{Hpa, Iova};
//! use amdv1::{Attributes, Table};
//!
//! let mut table = Table::default();
//! let rw = Attributes::READ | Attributes::WRITE | Attributes::FORCE_COHERENT;
//! table.map(Iova(0x4020_0000), Hpa(0x1234_0020_0000), 0x20_0000, rw)?;
//! assert_eq!(table.translate(Iova(0x4020_1234)), Some(Hpa(0x1234_0020_1234)));
//! # Ok::<(), amdv1::MapError>(())
//! ```

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod level;
mod map;
pub mod memory;
pub mod pte;
pub mod table;
mod table_address;
mod unmap;
pub mod walk;

pub use level::{Level, PageSize};
pub use map::MapError;
pub use memory::{HeapTables, OutOfTables, PageTables, TableAddress, TableMemory, TablePage};
pub use pte::{Attributes, Entry};
pub use table::Table;
pub use unmap::UnmapError;
pub use walk::{Leaf, Leaves, ReadEntry, Root, Run, WalkError};
