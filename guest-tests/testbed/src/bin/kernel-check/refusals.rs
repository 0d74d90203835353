// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every way in which `IOMMU_IOAS_NOIOMMU_GET_PA` refuses, and the variant that the backend makes
//! of it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use address::Bdf;
use iommufd_backend::GetPaError;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::Outcome;
use crate::raw::{self, Request, call, name};

const GET_PA: u8 = 0x95;
const SIZE: u32 = 40;
const AREA: u64 = 1 << 30;
const LENGTH: u64 = 1 << 20;

/// A question about 4 KiB at `iova`.
pub fn question(ioas: u32, iova: u64) -> Request {
    Request::new(SIZE)
        .word(8, ioas)
        .long(16, iova)
        .long(24, 4096)
}

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = raw::iommufd()?;
    let (device, number) = raw::bound(bdf, &iommufd)?;
    let ioas = raw::ioas(&iommufd)?;
    let memory = memory()?;
    map(&iommufd, ioas, &memory)?;

    // Nothing is attached and there is no page table: not a noiommu space yet.
    expect(
        &iommufd,
        "no storage",
        question(ioas, AREA),
        libc::EOPNOTSUPP,
    )?;
    let mut hwpt = Request::new(48).word(8, number).word(12, ioas);
    if call(&iommufd, 0x89, &mut hwpt) != 0 {
        return Err("cannot make a page table".into());
    }
    expect(&iommufd, "a good question", question(ioas, AREA), 0)?;

    let refusals = refusals(ioas, hwpt.get(16));
    for (what, request, errno) in refusals {
        expect(&iommufd, what, request, errno)?;
    }
    let beyond = question(ioas, AREA + LENGTH - 4096).long(24, 1 << 40);
    expect(
        &iommufd,
        "past the end of the area, which is cut",
        beyond,
        0,
    )?;
    // An older kernel, simulated by a command that this one does not support either.
    match call(&iommufd, 0xf0, &mut question(ioas, AREA)) {
        libc::ENOTTY => check_variant("an unknown command", libc::ENOTTY)?,
        errno => return Err(format!("an unknown command: {}", name(errno)).into()),
    }
    without_rawio(|| {
        expect(
            &iommufd,
            "no CAP_SYS_RAWIO",
            question(ioas, AREA),
            libc::EPERM,
        )
    })?;
    drop(device);
    Ok(format!(
        "{} refusals are as documented, each its own variant",
        refusals.len() + 3
    ))
}

/// What is asked of an IOAS that has a page table, `hwpt`, and the errno.
fn refusals(ioas: u32, hwpt: u32) -> [(&'static str, Request, i32); 10] {
    [
        (
            "too short",
            question(ioas, AREA).word(0, SIZE - 8),
            libc::EINVAL,
        ),
        (
            "a tail that is not zero",
            question(ioas, AREA).word(0, SIZE + 8).word(40, 1),
            libc::E2BIG,
        ),
        ("flags", question(ioas, AREA).word(4, 1), libc::EOPNOTSUPP),
        (
            "reserved",
            question(ioas, AREA).word(12, 1),
            libc::EOPNOTSUPP,
        ),
        ("length 0", question(ioas, AREA).long(24, 0), libc::EINVAL),
        (
            "the last byte of the space",
            question(ioas, u64::MAX),
            libc::EOVERFLOW,
        ),
        ("no such IOAS", question(9999, AREA), libc::ENOENT),
        (
            "no IOAS but a page table",
            question(hwpt, AREA),
            libc::ENOENT,
        ),
        ("before the area", question(ioas, AREA - 1), libc::ENOENT),
        (
            "behind the area",
            question(ioas, AREA + LENGTH),
            libc::ENOENT,
        ),
    ]
}

fn memory() -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create(
        "area",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.set_len(LENGTH)?;
    Ok(file)
}

fn map(iommufd: &File, ioas: u32, memory: &File) -> Result<(), Box<dyn std::error::Error>> {
    let mut request = Request::new(40)
        .word(4, 7)
        .word(8, ioas)
        .word(12, memory.as_raw_fd().cast_unsigned())
        .long(24, LENGTH)
        .long(32, AREA);
    match call(iommufd, 0x8f, &mut request) {
        0 => Ok(()),
        errno => Err(format!("cannot map: {}", name(errno)).into()),
    }
}

pub fn expect(
    iommufd: &File,
    what: &str,
    mut request: Request,
    wanted: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let found = call(iommufd, GET_PA, &mut request);
    if found != wanted {
        return Err(format!("{what}: {} instead of {}", name(found), name(wanted)).into());
    }
    if wanted == 0 {
        Ok(())
    } else {
        check_variant(what, wanted)
    }
}

/// The backend distinguishes the errnos.
fn check_variant(what: &str, errno: i32) -> Result<(), Box<dyn std::error::Error>> {
    let error = GetPaError::from(io::Error::from_raw_os_error(errno));
    let right = matches!(
        (errno, &error),
        (libc::EPERM, GetPaError::NotPermitted)
            | (libc::ENOTTY, GetPaError::NoSuchCommand)
            | (libc::EOPNOTSUPP, GetPaError::NotNoiommu)
            | (libc::EINVAL, GetPaError::Invalid)
            | (libc::E2BIG, GetPaError::TooNew)
            | (libc::EOVERFLOW, GetPaError::OutOfRange)
            | (libc::ENOENT, GetPaError::NotMapped)
    );
    println!("{what}: {} -> {error}", name(errno));
    if right {
        Ok(())
    } else {
        Err(format!("{what}: became {error:?}").into())
    }
}

/// Runs `check` with the capability taken out of the effective set.
fn without_rawio(
    check: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let sets = capabilities(None)?;
    let effective = sets.effective.difference(CapabilitySet::SYS_RAWIO);
    set_capabilities(None, CapabilitySets { effective, ..sets })?;
    let result = check();
    set_capabilities(None, sets)?;
    result
}
