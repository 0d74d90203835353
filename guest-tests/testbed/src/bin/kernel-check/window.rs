// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table that a guest is shown, walked as a guest walks it, against the kernel's answer for
//! every page.

use std::cell::RefCell;
use std::fs::File;
use std::sync::Arc;

use address::{Bdf, Gpa, Iova};
use devices::dma_window::{self, Options};
use devices::guest_table::{GuestTable, Piece, Pieces, bar_size};
use devices::pci::{PciFunction, Region};
use dma_window_guest::{Bars, DmaWindow};
use iommufd_backend::PinRequest;
use iommufd_backend::{Cdev, Iommufd, NoiommuSpace, PciSysfs, TablePages, VfioDevice};
use rustix::fs::MemfdFlags;

use crate::{Outcome, close};

const PAGE: u64 = 4096;
const MEMORY: u64 = 256 << 20;
const COOKIE: Iova = Iova(1 << 30);
/// Where the guest would have the memory, the registers and the table.
const GUEST: Gpa = Gpa(2 << 20);
const REGISTERS: Gpa = Gpa(0xd000_0000);
const TABLE: Gpa = Gpa(1 << 40);

/// The function's BARs, without a guest between.
struct Direct(RefCell<dma_window::DmaWindow<TablePages>>);

impl Direct {
    fn read<const N: usize>(&self, bar: u8, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        let mut function = self.0.borrow_mut();
        function.bar_read(Region::Bar(bar), offset, &mut data);
        data
    }
}

impl Bars for Direct {
    fn read_register(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(0, offset))
    }

    fn write_register(&self, offset: u64, value: u32) {
        let mut function = self.0.borrow_mut();
        function.bar_write(Region::Bar(0), offset, &value.to_le_bytes());
    }

    fn read64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(2, offset))
    }
}

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = Arc::new(Iommufd::open()?);
    let device = VfioDevice::bind(Cdev::open(&PciSysfs::default(), bdf)?, Arc::clone(&iommufd))?;
    let mut space = NoiommuSpace::new(iommufd)?;
    space.attach(&device)?;
    let file = File::from(rustix::fs::memfd_create("window", MemfdFlags::CLOEXEC)?);
    file.set_len(MEMORY)?;
    let extents = space.pin(&PinRequest {
        file: &file,
        offset: 0,
        len: MEMORY,
        page_size: PAGE,
        iova: COOKIE,
    })?;
    let pieces = extents.iter().map(|extent| Piece {
        gpa: GUEST + (extent.iova() - COOKIE),
        hpa: extent.hpa(),
        len: extent.len(),
    });
    let window = shown(&Pieces::new(pieces)?)?;
    for page in 0..MEMORY / PAGE {
        let offset = page * PAGE;
        let walked = window
            .translate(GUEST + offset, PAGE)
            .map_err(|error| format!("page {page}: {error:?}"))?;
        let (answer, _) = space.ask_kernel(COOKIE + offset, PAGE)?;
        if (walked.hpa, walked.len) != (answer, PAGE) {
            return Err(
                format!("page {page}: {walked:x?}, but the kernel returns {answer}").into(),
            );
        }
    }
    for outside in [Gpa(0), Gpa(GUEST.0 - PAGE), GUEST + MEMORY, TABLE] {
        if let Ok(run) = window.translate(outside, PAGE) {
            return Err(format!("{outside} is not the guest's, but at {run:x?}").into());
        }
    }
    space.release(&close(device)?)?;
    Ok(format!(
        "{} pages in {} pieces are where the kernel reports",
        MEMORY / PAGE,
        extents.len()
    ))
}

/// A window on memory of `pieces` as a guest opens it.
fn shown(pieces: &Pieces) -> Result<DmaWindow<Direct>, Box<dyn std::error::Error>> {
    let count = pieces.table_pages();
    let pages = TablePages::new(count, bar_size(count), TABLE.0)?;
    let function = dma_window::DmaWindow::new(Options {
        registers: REGISTERS,
        table: Arc::new(GuestTable::build(pieces, TABLE, pages)?),
        functions: Vec::new(),
    })?;
    let bars = Direct(RefCell::new(function));
    DmaWindow::open(bars, TABLE).map_err(|error| format!("{error:?}").into())
}
