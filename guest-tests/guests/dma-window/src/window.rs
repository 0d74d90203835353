// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A window that was found.

use address::{Bdf, Gpa, Hpa, Iova};
use amdv1::walk::{self, ReadEntry};
use amdv1::{Entry, Level, Root, Run, TableAddress, WalkError};
use thiserror::Error;

use crate::registers::{
    DISABLE, FEATURES, MAGIC, REG_BYTES, REG_FEATURES, REG_FUNCTION, REG_GENERATION, REG_LEVELS,
    REG_MAGIC, REG_QUERY_CONTIGUOUS, REG_QUERY_GPA, REG_QUERY_HPA, REG_QUERY_LENGTH, REG_REFUSED,
    REG_STATUS, REG_TOP, REG_VERSION, STATUS_DISABLED, STATUS_ENABLED, VERSION,
};

const PAGE: u64 = 4096;

/// Access to the window's BARs. Numbers are little-endian there; each access is a single one of
/// its width, and those to registers are not reordered.
pub trait Bars {
    /// Reads 32 bits at `offset` into BAR 0, a multiple of 4 below 4096.
    fn read_register(&self, offset: u64) -> u32;

    /// Writes 32 bits at `offset` into BAR 0, a multiple of 4 below 4096.
    fn write_register(&self, offset: u64, value: u32);

    /// Reads 64 bits at `offset` into BAR 2, a multiple of 8 below
    /// [`DmaWindow::table_bytes`].
    fn read64(&self, offset: u64) -> u64;
}

/// Why a function is no window that can be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It does not identify itself as one. All-ones mean that memory decode is off.
    #[error("no DMA window: its first register reads {found:#x} instead of {MAGIC:#x}")]
    Magic {
        /// Its contents.
        found: u32,
    },
    /// Its interface is another.
    #[error("the DMA window has version {found}, this guest supports {VERSION}")]
    Version {
        /// The interface's version.
        found: u32,
    },
    /// It lacks a part that version 1 always has.
    #[error("the DMA window has features {found:#b}, not all of {FEATURES:#b}")]
    Features {
        /// The features it has.
        found: u32,
    },
    /// Its description of its table is invalid.
    #[error(
        "the DMA window's table at {table} is invalid: {bytes:#x} bytes, {levels} levels, top \
         {top:#x}"
    )]
    Table {
        /// Address of BAR 2.
        table: Gpa,
        /// Bytes of the table.
        bytes: u64,
        /// Its levels.
        levels: u32,
        /// Its top pointer.
        top: u64,
    },
}

/// Why there is no address to give to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TranslateError {
    /// The address is not that of memory, or no bytes were asked for.
    #[error("{len:#x} bytes at GPA {gpa} are not memory that a device can access")]
    NotMemory {
        /// The address.
        gpa: Gpa,
        /// Bytes.
        len: u64,
    },
    /// The table has an error.
    #[error("the DMA window's table is malformed")]
    Table(#[from] WalkError),
}

/// A function's bus mastering was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the DMA window returns {status} for the function {function}")]
pub struct EnableError {
    /// The function.
    pub function: Bdf,
    /// The status register: 3 for a function that is not passed through or does not need the
    /// window.
    pub status: u32,
}

/// A DMA window.
///
/// Translating takes a shared reference, because the table can be read by any number of threads.
/// A query and a change of bus mastering are several accesses to registers, so they take it
/// exclusively.
#[derive(Debug)]
pub struct DmaWindow<B> {
    bars: B,
    /// Address of BAR 2.
    base: Gpa,
    bytes: u64,
    root: Root,
}

impl<B: Bars> DmaWindow<B> {
    /// The window behind `bars`, whose BAR 2 is at `table`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if this is no window of version 1.
    pub fn open(bars: B, table: Gpa) -> Result<Self, OpenError> {
        let found = bars.read_register(REG_MAGIC);
        if found != MAGIC {
            return Err(OpenError::Magic { found });
        }
        let found = bars.read_register(REG_VERSION);
        if found != VERSION {
            return Err(OpenError::Version { found });
        }
        let found = bars.read_register(REG_FEATURES);
        if found & FEATURES != FEATURES {
            return Err(OpenError::Features { found });
        }
        let levels = bars.read_register(REG_LEVELS);
        let (top, bytes) = (read_wide(&bars, REG_TOP), read_wide(&bars, REG_BYTES));
        let root = root(table, bytes, levels, top).ok_or(OpenError::Table {
            table,
            bytes,
            levels,
            top,
        })?;
        Ok(Self {
            bars,
            base: table,
            bytes,
            root,
        })
    }

    /// Where a device finds the byte at `gpa`, and how many of the `len` bytes from there on
    /// follow it: at least 1, at most `len`. For the rest of a buffer ask again.
    ///
    /// Reads at most six entries of the table for each page of the answer and the one behind it,
    /// and nothing outside of the table, whatever it holds.
    ///
    /// # Errors
    ///
    /// [`TranslateError`] if a device cannot be pointed there.
    pub fn translate(&self, gpa: Gpa, len: u64) -> Result<Run, TranslateError> {
        let run = walk::run(&TableReader(self), self.root, Iova(gpa.0), len)?;
        run.ok_or(TranslateError::NotMemory { gpa, len })
    }

    /// The result of [`translate`](Self::translate), through the registers. Slower, as each access
    /// to a register leaves the guest; for guests that cannot map the table.
    ///
    /// # Errors
    ///
    /// [`TranslateError::NotMemory`].
    pub fn query(&mut self, gpa: Gpa, len: u64) -> Result<Run, TranslateError> {
        write_wide(&self.bars, REG_QUERY_GPA, gpa.0);
        write_wide(&self.bars, REG_QUERY_LENGTH, len);
        match read_wide(&self.bars, REG_QUERY_CONTIGUOUS) {
            0 => Err(TranslateError::NotMemory { gpa, len }),
            contiguous => Ok(Run {
                hpa: Hpa(read_wide(&self.bars, REG_QUERY_HPA)),
                len: contiguous,
            }),
        }
    }

    /// Allows `function` to be a bus master. Its driver confirms with this that it gives the device
    /// translated addresses only.
    ///
    /// It counts from the next access to the function's config space on: set Bus Master in
    /// COMMAND after this, or read COMMAND if it is set already.
    ///
    /// # Errors
    ///
    /// [`EnableError`] if the window does not have the function.
    pub fn enable(&mut self, function: Bdf) -> Result<(), EnableError> {
        self.change(function, 0, STATUS_ENABLED)
    }

    /// Takes back what [`enable`](Self::enable) gave, for when the driver lets go of the device.
    ///
    /// It counts from the next access to the function's config space on: clear Bus Master in
    /// COMMAND.
    ///
    /// # Errors
    ///
    /// [`EnableError`] if the window does not have the function.
    pub fn disable(&mut self, function: Bdf) -> Result<(), EnableError> {
        self.change(function, DISABLE, STATUS_DISABLED)
    }

    /// A number that changes when the table does. Version 1 windows keep one table for as long
    /// as the guest runs.
    #[must_use]
    pub fn generation(&self) -> u64 {
        read_wide(&self.bars, REG_GENERATION)
    }

    /// Queries refused since reset.
    #[must_use]
    pub fn refused_queries(&self) -> u64 {
        read_wide(&self.bars, REG_REFUSED)
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.bytes
    }

    /// The BARs.
    pub fn bars(&self) -> &B {
        &self.bars
    }

    fn change(&mut self, function: Bdf, flag: u32, expected: u32) -> Result<(), EnableError> {
        let id = u32::from(function.routing_id());
        // Only functions of domain 0 have a place in the register.
        let status = if function.domain() == 0 {
            self.bars.write_register(REG_FUNCTION, id | flag);
            self.bars.read_register(REG_STATUS)
        } else {
            0
        };
        if status == expected {
            Ok(())
        } else {
            Err(EnableError { function, status })
        }
    }
}

/// The table as the walk sees it: by the guest-physical addresses in its pointers.
struct TableReader<'a, B>(&'a DmaWindow<B>);

impl<B: Bars> ReadEntry for TableReader<'_, B> {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        let offset = address.checked_sub(self.0.base.0)?;
        (offset < self.0.bytes).then(|| Entry(self.0.bars.read64(offset)))
    }
}

/// The root of a table, if there can be one such.
fn root(table: Gpa, bytes: u64, levels: u32, top: u64) -> Option<Root> {
    let level = Level::new(u8::try_from(levels).ok()?.checked_sub(1)?)?;
    let end = table.checked_add(bytes)?;
    let is_inside = (table.0..end.0).contains(&top);
    let is_paged = table.is_aligned(PAGE) && bytes.is_multiple_of(PAGE);
    let table = TableAddress::new(top).filter(|_| is_inside && is_paged)?;
    Some(Root { table, level })
}

fn read_wide(bars: &impl Bars, offset: u64) -> u64 {
    u64::from(bars.read_register(offset)) | u64::from(bars.read_register(offset + 4)) << 32
}

/// Writes the lower half first: the upper half of the length starts a query.
fn write_wide(bars: &impl Bars, offset: u64, value: u64) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    bars.write_register(offset, u32::from_le_bytes([a, b, c, d]));
    bars.write_register(offset + 4, u32::from_le_bytes([e, f, g, h]));
}
