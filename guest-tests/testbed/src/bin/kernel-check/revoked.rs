// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `IOMMU_IOAS_NOIOMMU_GET_PA` for a BAR that was mapped as a dma-buf and is taken back.
//!
//! `vfio_pci_dma_buf_move` (`drivers/vfio/pci/vfio_pci_dmabuf.c`) revokes the dma-bufs of a
//! function when its memory decoding is switched off and when it is reset. Its users lose them for
//! good: `iopt_revoke_notify` (`drivers/iommu/iommufd/pages.c`) forgets where they were.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use address::Bdf;
use pci_config::regs::{COMMAND, COMMAND_MEMORY};

use crate::Outcome;
use crate::raw::{self, Request, call, name};
use crate::refusals::{expect, question};

const AREA: u64 = 1 << 30;
const LENGTH: u64 = 4096;
/// Config space, region 7, in a device's file.
const CONFIG: u64 = 7 << 40;
const MAP_FILE: u8 = 0x8f;
const UNMAP: u8 = 0x86;
const DEVICE_RESET: u8 = 111;

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = raw::iommufd()?;
    let (device, number) = raw::bound(bdf, &iommufd)?;
    let bar = match (bar_as_dma_buf(&device), exporter()?) {
        (Ok(bar), true) => bar,
        (Err(libc::ENOTTY), false) => {
            return Ok("this kernel makes no dma-bufs of BARs: ENOTTY, and none to revoke".into());
        }
        (result, exporter) => {
            return Err(format!("{result:?} where exporting is built in: {exporter}").into());
        }
    };
    let ioas = raw::ioas(&iommufd)?;
    let mut hwpt = Request::new(48).word(8, number).word(12, ioas);
    if call(&iommufd, 0x89, &mut hwpt) != 0 {
        return Err("cannot make a page table".into());
    }
    let decode = |on: bool| -> std::io::Result<()> {
        let mut command = [0; 2];
        device.read_exact_at(&mut command, CONFIG + u64::from(COMMAND))?;
        let others = u16::from_le_bytes(command) & !COMMAND_MEMORY;
        let command = if on { others | COMMAND_MEMORY } else { others };
        device.write_all_at(&command.to_le_bytes(), CONFIG + u64::from(COMMAND))
    };

    map(&iommufd, ioas, &bar)?;
    let mut answer = question(ioas, AREA);
    match (call(&iommufd, 0x95, &mut answer), answer.long_at(32)) {
        (0, hpa) if hpa == first_bar(bdf)? => {}
        (errno, hpa) => return Err(format!("a BAR: {}, {hpa:#x}", name(errno)).into()),
    }
    decode(false)?;
    let refused = |what| expect(&iommufd, what, question(ioas, AREA), libc::EINVAL);
    refused("a dma-buf of a BAR that is switched off")?;
    decode(true)?;
    refused("a dma-buf of a BAR that was switched off")?;

    // The dma-buf itself comes back, for mapping it again.
    unmap(&iommufd, ioas)?;
    map(&iommufd, ioas, &bar)?;
    expect(&iommufd, "a dma-buf mapped again", question(ioas, AREA), 0)?;
    raw::call_value(&device, DEVICE_RESET, 0).map_err(name)?;
    refused("a dma-buf of a BAR of a function that was reset")?;
    Ok("dma-bufs of a BAR that was switched off or reset are EINVAL".into())
}

/// Whether this kernel was built with `CONFIG_VFIO_PCI_DMABUF`.
fn exporter() -> std::io::Result<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    Ok(symbols
        .lines()
        .any(|line| line.ends_with(" vfio_pci_dma_buf_move")))
}

/// The first page of the first BAR (`VFIO_DEVICE_FEATURE_DMA_BUF`), or the errno.
fn bar_as_dma_buf(device: &File) -> Result<OwnedFd, i32> {
    const FEATURE: u8 = 117;
    const GET: u32 = 1 << 16;
    const DMA_BUF: u32 = 11;
    let mut request = Request::new(40)
        .word(4, GET | DMA_BUF)
        .word(12, (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned())
        .word(20, 1)
        .long(32, LENGTH);
    let fd = raw::call_result(device, FEATURE, &mut request)?;
    // SAFETY: a success of this command is a new file descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn map(iommufd: &File, ioas: u32, bar: &OwnedFd) -> Result<(), String> {
    let mut request = Request::new(40)
        .word(4, 7)
        .word(8, ioas)
        .word(12, bar.as_raw_fd().cast_unsigned())
        .long(24, LENGTH)
        .long(32, AREA);
    match call(iommufd, MAP_FILE, &mut request) {
        0 => Ok(()),
        errno => Err(format!("cannot map a dma-buf: {}", name(errno))),
    }
}

fn unmap(iommufd: &File, ioas: u32) -> Result<(), String> {
    let mut request = Request::new(24)
        .word(4, ioas)
        .long(8, AREA)
        .long(16, LENGTH);
    match call(iommufd, UNMAP, &mut request) {
        0 => Ok(()),
        errno => Err(format!("cannot unmap a dma-buf: {}", name(errno))),
    }
}

/// Physical address of the first BAR: the first number of sysfs' `resource`.
fn first_bar(bdf: Bdf) -> Result<u64, Box<dyn std::error::Error>> {
    let resource = fs::read_to_string(format!("/sys/bus/pci/devices/{bdf}/resource"))?;
    let start = resource.split_whitespace().next().ok_or("no resources")?;
    Ok(u64::from_str_radix(start.trim_start_matches("0x"), 16)?)
}
