// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How often the kernel is asked about memory of which nothing is known to be contiguous: once for
//! each run, as long as it is.
//!
//! The script has put a probe on the command, which notes the length that each call asks for. Each
//! asks for all the rest, so the lengths show how much every answer covered.

use std::fs::{self, File};
use std::sync::Arc;

use address::{Bdf, Hpa, Iova};
use iommufd_backend::FileRange;
use iommufd_backend::PinRequest;
use iommufd_backend::{Cdev, Iommufd, Mapping, NoiommuSpace, Pagemap, PciSysfs, VfioDevice};

use crate::{Outcome, close, pagemap};

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
const LENGTH: u64 = 32 << 20;
const COOKIE: Iova = Iova(1 << 30);
const TRACE: &str = "/sys/kernel/tracing/trace";
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

pub fn run(bdf: Bdf) -> Outcome {
    let iommufd = Arc::new(Iommufd::open()?);
    let device = VfioDevice::bind(Cdev::open(&PciSysfs::default(), bdf)?, Arc::clone(&iommufd))?;
    let mut space = NoiommuSpace::new(iommufd)?;
    space.attach(&device)?;
    fs::write(SHMEM, "never")?;
    let small = ask_once_each_run(&mut space)?;
    fs::write(SHMEM, "always")?;
    let large = ask_once_each_run(&mut space)?;
    fs::write(SHMEM, "never")?;
    if large.whole == 0 || small.runs <= large.runs {
        return Err(format!(
            "shows nothing: {} runs of 4 KiB pages, {} with {} transparent hugepages",
            small.runs, large.runs, large.whole
        )
        .into());
    }
    space.release(&close(device)?)?;
    Ok(format!(
        "32 MiB of 4 KiB pages: {} runs and questions; of transparent hugepages ({} of 2 MiB): {}",
        small.runs, large.whole, large.runs
    ))
}

/// pagemap's view of memory.
struct Layout {
    runs: usize,
    /// 2 MiB that are contiguous and aligned.
    whole: usize,
}

fn ask_once_each_run(space: &mut NoiommuSpace) -> Result<Layout, Box<dyn std::error::Error>> {
    let file = File::from(rustix::fs::memfd_create(
        "runs",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.set_len(LENGTH)?;
    let mut mapping = Mapping::reserve(LENGTH, 0)?;
    mapping.place(0, FileRange::first(&file, LENGTH), "memory to ask about")?;
    // Half of it in order, half in none, for runs of all lengths.
    let mut pages: Vec<u64> = (0..LENGTH / PAGE).collect();
    let half = pages.len() / 2;
    fastrand::Rng::with_seed(3).shuffle(&mut pages[half..]);
    pagemap::touch(&mapping, pages.iter().copied());

    fs::write(TRACE, "")?;
    let extents = space.pin(&PinRequest {
        file: &file,
        offset: 0,
        len: LENGTH,
        page_size: PAGE,
        iova: COOKIE,
    })?;
    let asked = lengths_asked(&fs::read_to_string(TRACE)?)?;
    // Pinning may have moved pages, and then this process has them no longer.
    pages.sort_unstable();
    pagemap::touch(&mapping, pages);
    let runs = runs(&mapping)?;
    let found: Vec<_> = extents.iter().map(|e| (e.hpa(), e.len())).collect();
    if found != runs {
        return Err("the extents are not those of pagemap".into());
    }
    let answered: Vec<u64> = asked
        .iter()
        .zip(asked.iter().skip(1).chain([&0]))
        .map(|(before, after)| before.wrapping_sub(*after))
        .collect();
    let lengths: Vec<u64> = runs.iter().map(|(_, length)| *length).collect();
    if answered != lengths {
        return Err(format!(
            "{} questions for {} runs, or shorter answers",
            asked.len(),
            runs.len()
        )
        .into());
    }
    space.unpin(COOKIE, LENGTH)?;
    let whole = |(hpa, length): &(Hpa, u64)| {
        let first = hpa.0.next_multiple_of(HUGE);
        usize::try_from((hpa.0 + length).saturating_sub(first) / HUGE).unwrap_or(usize::MAX)
    };
    Ok(Layout {
        runs: runs.len(),
        whole: runs.iter().map(whole).sum(),
    })
}

/// The contiguous parts of the memory, none of which continues in the next.
fn runs(mapping: &Mapping) -> Result<Vec<(Hpa, u64)>, Box<dyn std::error::Error>> {
    let pagemap = Pagemap::open()?;
    let mut runs: Vec<(Hpa, u64)> = Vec::new();
    for at in (0..mapping.len()).step_by(usize::try_from(PAGE)?) {
        let page = pagemap::hpa(&pagemap, mapping.start() + at)?;
        match runs.last_mut() {
            Some((hpa, length)) if *hpa + *length == page => *length += PAGE,
            _ => runs.push((page, PAGE)),
        }
    }
    Ok(runs)
}

fn lengths_asked(trace: &str) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let calls = trace.lines().filter(|line| line.contains(" get_pa: "));
    calls
        .map(|line| {
            let (_, length) = line
                .split_once("length=0x")
                .ok_or("a call without a length")?;
            Ok(u64::from_str_radix(length.trim(), 16)?)
        })
        .collect()
}
