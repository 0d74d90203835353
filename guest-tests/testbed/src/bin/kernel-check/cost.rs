// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What it costs to ask where pinned memory is, in instructions: to be run on a machine whose
//! clock counts them (`-smp 1 -icount shift=0,sleep=off`: a nanosecond is an instruction).

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use address::{Bdf, Iova};
use iommufd_backend::PinRequest;
use iommufd_backend::hugepages::{self, HugepageSize};
use iommufd_backend::{Cdev, Iommufd, NoiommuSpace, PciSysfs, VfioDevice};

use crate::{Outcome, close};

const GIB: u64 = 1 << 30;
const COOKIE: Iova = Iova(GIB);
const SMALL: u64 = 4096;
/// How often the short questions are asked.
const ROUNDS: u32 = 8;
/// Instructions that a GiB of 2 MiB hugepages may cost.
const MAX_INSTRUCTIONS: u128 = 600_000;

pub fn run(bdf: Bdf) -> Outcome {
    let size = HugepageSize::Mib2;
    let iommufd = Arc::new(Iommufd::open()?);
    let device = VfioDevice::bind(Cdev::open(&PciSysfs::default(), bdf)?, Arc::clone(&iommufd))?;
    let mut space = NoiommuSpace::new(iommufd)?;
    space.attach(&device)?;
    let file = hugepages::memfd(size)?;
    file.set_len(GIB)?;
    hugepages::populate(&file, 0, GIB)?;
    space.pin(&PinRequest {
        file: &file,
        offset: 0,
        len: GIB,
        page_size: size.bytes(),
        iova: COOKIE,
    })?;

    // What the kernel does beside is in some of the rounds: the smallest is the cost.
    let (mut by_page, mut asked) = (u128::MAX, 0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        asked = 0;
        for at in (0..GIB).step_by(usize::try_from(size.bytes())?) {
            space.ask_kernel(COOKIE + at, SMALL)?;
            asked += 1;
        }
        by_page = by_page.min(start.elapsed().as_nanos());
    }

    let start = Instant::now();
    let (mut at, mut followed) = (0, 0);
    while at < GIB {
        at += space.ask_kernel(COOKIE + at, GIB - at)?.1;
        followed += 1;
    }
    let by_run = start.elapsed().as_nanos();

    space.unpin(COOKIE, GIB)?;
    let whole = pin_and_unpin(&mut space, &file, GIB)?;
    let pieces = pin_and_unpin(&mut space, &file, size.bytes())?;
    space.release(&close(device)?)?;
    let summary = format!(
        "1 GiB of 2 MiB pages: {asked} short questions, {by_page} instructions; {followed} questions \
         that follow the runs, {by_run} instructions, {} times as many; pinned, asked for and unpinned in \
         one piece, {whole} instructions, page by page, {pieces}",
        by_run / by_page.max(1)
    );
    if by_page > MAX_INSTRUCTIONS {
        return Err(format!("{summary}; more than {MAX_INSTRUCTIONS}").into());
    }
    Ok(summary)
}

/// Instructions for pinning a GiB in pieces of `step` bytes, asking where it is, and unpinning it.
fn pin_and_unpin(
    space: &mut NoiommuSpace,
    file: &File,
    step: u64,
) -> Result<u128, Box<dyn std::error::Error>> {
    let mut least = u128::MAX;
    let pieces = || (0..GIB / step).map(|number| number * step);
    for _ in 0..ROUNDS / 2 {
        let start = Instant::now();
        for offset in pieces() {
            space.pin(&PinRequest {
                file,
                offset,
                len: step,
                page_size: HugepageSize::Mib2.bytes(),
                iova: COOKIE + offset,
            })?;
        }
        for offset in pieces() {
            space.unpin(COOKIE + offset, step)?;
        }
        least = least.min(start.elapsed().as_nanos());
    }
    Ok(least)
}
