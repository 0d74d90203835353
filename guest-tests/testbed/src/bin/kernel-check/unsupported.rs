// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything that a device in noiommu mode cannot do, tried once: the kernel must refuse, or give
//! the documented result, and stay intact.

use std::fs::File;

use address::Bdf;
use iommufd_backend::{FileRange, Mapping};

use crate::Outcome;
use crate::raw::{self, Request, call, name};

/// A call, and the answer that it must have.
#[derive(Clone, Debug)]
struct Row {
    what: &'static str,
    command: u8,
    request: Request,
    /// The errno, 0 for success.
    wanted: i32,
}

const HWPT_ALLOC: u8 = 0x89;
const FAULT_QUEUE_ALLOC: u8 = 0x8e;
const VFIO_IOAS: u8 = 0x88;
const ATTACH: u8 = 119;
/// An object number that nothing has.
const NOTHING: u32 = 9999;

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = raw::iommufd()?;
    let (device, number) = raw::bound(bdf, &iommufd)?;
    let ioas = raw::ioas(&iommufd)?;
    let mut plain = hwpt(number, ioas);
    if call(&iommufd, HWPT_ALLOC, &mut plain) != 0 {
        return Err("cannot make a page table".into());
    }
    let paging = plain.get(16);
    let mut queue = Request::new(16);
    if call(&iommufd, FAULT_QUEUE_ALLOC, &mut queue) != 0 {
        return Err("cannot make a fault queue".into());
    }
    let rows = [
        page_tables(number, ioas, queue.get(8)),
        paging_calls(paging),
        driver_tables(number, ioas, paging),
        other_objects(number, paging),
        compatibility(ioas),
    ]
    .concat();
    for row in &rows {
        expect(&iommufd, row)?;
    }
    let on_device = device_rows(ioas, paging);
    for row in &on_device {
        expect(&device, row)?;
    }
    let legacy = legacy_container(&iommufd, ioas)?;
    Ok(format!(
        "{} calls answered as documented",
        rows.len() + on_device.len() + legacy + 2
    ))
}

fn row(what: &'static str, command: u8, request: Request, wanted: i32) -> Row {
    Row {
        what,
        command,
        request,
        wanted,
    }
}

/// A call of HWPT_ALLOC.
fn alloc(what: &'static str, request: Request, wanted: i32) -> Row {
    row(what, HWPT_ALLOC, request, wanted)
}

fn hwpt(device: u32, table: u32) -> Request {
    Request::new(48).word(8, device).word(12, table)
}

fn page_tables(device: u32, ioas: u32, queue: u32) -> Vec<Row> {
    let flags = |flags| hwpt(device, ioas).word(4, flags);
    vec![
        alloc("HWPT_ALLOC for nesting", flags(1), libc::EOPNOTSUPP),
        alloc("HWPT_ALLOC with dirty tracking", flags(2), libc::EOPNOTSUPP),
        alloc("HWPT_ALLOC with PASID", flags(8), libc::EOPNOTSUPP),
        alloc(
            "HWPT_ALLOC with an unknown flag",
            flags(1 << 20),
            libc::EOPNOTSUPP,
        ),
        alloc("HWPT_ALLOC with a fault queue", flags(4).word(40, queue), 0),
        alloc(
            "HWPT_ALLOC with a wrong fault queue",
            flags(4).word(40, NOTHING),
            libc::ENOENT,
        ),
        alloc(
            "HWPT_ALLOC with a data type but no data",
            hwpt(device, ioas).word(24, 1),
            libc::EINVAL,
        ),
        alloc(
            "HWPT_ALLOC for an unknown device",
            hwpt(NOTHING, ioas),
            libc::ENOENT,
        ),
        alloc(
            "HWPT_ALLOC on an unknown table",
            hwpt(device, NOTHING),
            libc::EINVAL,
        ),
    ]
}

/// What else a page table has calls for.
fn paging_calls(paging: u32) -> Vec<Row> {
    vec![
        row(
            "HWPT_SET_DIRTY_TRACKING on",
            0x8b,
            Request::new(16).word(4, 1).word(8, paging),
            libc::EOPNOTSUPP,
        ),
        row(
            "HWPT_SET_DIRTY_TRACKING off",
            0x8b,
            Request::new(16).word(8, paging),
            libc::EOPNOTSUPP,
        ),
        row(
            "HWPT_GET_DIRTY_BITMAP",
            0x8c,
            Request::new(48)
                .word(4, paging)
                .long(24, 4096)
                .long(32, 4096),
            libc::EOPNOTSUPP,
        ),
        row(
            "HWPT_INVALIDATE of a paging table",
            0x8d,
            Request::new(32).word(4, paging).word(20, 8),
            libc::EINVAL,
        ),
    ]
}

/// Tables with data of an IOMMU driver's own, of which there is none.
fn driver_tables(device: u32, ioas: u32, paging: u32) -> Vec<Row> {
    const VTD_STAGE_1: u32 = 1;
    static DATA: [u8; 16] = [0; 16];
    let with_data = |table| {
        hwpt(device, table)
            .word(24, VTD_STAGE_1)
            .word(28, 16)
            .long(32, DATA.as_ptr().expose_provenance() as u64)
    };
    vec![
        alloc(
            "HWPT_ALLOC with a driver's data",
            with_data(ioas),
            libc::EOPNOTSUPP,
        ),
        alloc(
            "HWPT_ALLOC nested in a table",
            with_data(paging),
            libc::EOPNOTSUPP,
        ),
    ]
}

fn other_objects(device: u32, paging: u32) -> Vec<Row> {
    vec![
        row(
            "GET_HW_INFO",
            0x8a,
            Request::new(40).word(8, device),
            libc::EOPNOTSUPP,
        ),
        row(
            "VIOMMU_ALLOC",
            0x90,
            Request::new(40)
                .word(8, 1)
                .word(12, device)
                .word(16, paging),
            libc::EOPNOTSUPP,
        ),
        row(
            "VDEVICE_ALLOC without a vIOMMU",
            0x91,
            Request::new(24).word(4, NOTHING).word(8, device),
            libc::ENOENT,
        ),
        row(
            "VEVENTQ_ALLOC without a vIOMMU",
            0x93,
            Request::new(32).word(8, NOTHING).word(12, 1).word(16, 8),
            libc::ENOENT,
        ),
        row(
            "HW_QUEUE_ALLOC without a vIOMMU",
            0x94,
            Request::new(40).word(8, NOTHING).word(12, 1).long(32, 4096),
            libc::ENOENT,
        ),
    ]
}

/// The compat IOAS, through which programs for VFIO containers would come.
fn compatibility(ioas: u32) -> Vec<Row> {
    let request = |op: u32| Request::new(12).word(4, ioas).word(8, op);
    vec![
        row(
            "VFIO_IOAS get before set",
            VFIO_IOAS,
            request(0),
            libc::ENODEV,
        ),
        row("VFIO_IOAS set", VFIO_IOAS, request(1), 0),
        row("VFIO_IOAS get", VFIO_IOAS, request(0), 0),
        row("VFIO_IOAS clear", VFIO_IOAS, request(2), 0),
        row(
            "VFIO_IOAS get after clear",
            VFIO_IOAS,
            request(0),
            libc::ENODEV,
        ),
    ]
}

fn device_rows(ioas: u32, paging: u32) -> Vec<Row> {
    const FEATURE: u8 = 117;
    /// `VFIO_DEVICE_FEATURE_PROBE` with GET or SET.
    const PROBE_GET: u32 = 1 << 18 | 1 << 16;
    const PROBE_SET: u32 = 1 << 18 | 1 << 17;
    const MIGRATION: u32 = 1;
    const BUS_MASTER: u32 = 10;
    let feature = |flags| Request::new(8).word(4, flags);
    let attach = |table, flags| Request::new(16).word(4, flags).word(8, table).word(12, 1);
    vec![
        row(
            "ATTACH of a PASID to an IOAS",
            ATTACH,
            attach(ioas, 1),
            libc::EINVAL,
        ),
        row(
            "ATTACH of a PASID to a table",
            ATTACH,
            attach(paging, 1),
            libc::EINVAL,
        ),
        row(
            "ATTACH to nothing",
            ATTACH,
            attach(NOTHING, 0),
            libc::ENOENT,
        ),
        row(
            "FEATURE migration",
            FEATURE,
            feature(PROBE_GET | MIGRATION),
            libc::ENOTTY,
        ),
        row(
            "FEATURE bus master",
            FEATURE,
            feature(PROBE_SET | BUS_MASTER),
            libc::ENOTTY,
        ),
    ]
}

/// The commands of VFIO containers on an iommufd with a compat IOAS. Returns how many were tried.
fn legacy_container(iommufd: &File, ioas: u32) -> Result<usize, Box<dyn std::error::Error>> {
    const CHECK_EXTENSION: u8 = 101;
    const SET_IOMMU: u8 = 102;
    const MAP_DMA: u8 = 113;
    const GET_PA: u8 = 0x95;
    /// `VFIO_NOIOMMU_IOMMU`
    const NOIOMMU: u64 = 8;
    const IOVA: u64 = 1 << 31;
    const LENGTH: u64 = 4096;

    let extension = raw::call_value(iommufd, CHECK_EXTENSION, NOIOMMU);
    if extension != Ok(1) {
        return Err(format!("CHECK_EXTENSION of noiommu: {extension:?}").into());
    }
    let set = raw::call_value(iommufd, SET_IOMMU, NOIOMMU);
    if set != Err(libc::EINVAL) {
        return Err(format!("SET_IOMMU without a group: {set:?}").into());
    }
    let mut memory = Mapping::reserve(LENGTH, 0)?;
    let file = File::from(rustix::fs::memfd_create(
        "legacy",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.set_len(LENGTH)?;
    memory.place(0, FileRange::first(&file, LENGTH), "memory to map")?;
    let map = Request::new(32)
        .word(4, 3)
        .long(8, memory.start().0)
        .long(16, IOVA)
        .long(24, LENGTH);
    let question = Request::new(40)
        .word(8, ioas)
        .long(16, IOVA)
        .long(24, LENGTH);
    for row in [
        row(
            "VFIO_IOAS set again",
            VFIO_IOAS,
            Request::new(12).word(4, ioas).word(8, 1),
            0,
        ),
        row("legacy MAP_DMA", MAP_DMA, map, 0),
        row(
            "GET_PA of what was mapped the legacy way",
            GET_PA,
            question,
            0,
        ),
    ] {
        expect(iommufd, &row)?;
    }
    Ok(5)
}

fn expect(file: &File, row: &Row) -> Result<(), String> {
    let what = row.what;
    let mut request = row.request;
    let found = call(file, row.command, &mut request);
    println!("{what}: {}", name(found));
    if found == row.wanted {
        Ok(())
    } else {
        Err(format!(
            "{what}: {} instead of {}",
            name(found),
            name(row.wanted)
        ))
    }
}
