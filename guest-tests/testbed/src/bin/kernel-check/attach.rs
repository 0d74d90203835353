// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two devices in one address space, and devices that leave it and come back: memory stays where it is as
//! long as one of them is attached.

use std::fs::File;

use address::Bdf;
use iommufd_backend::FileRange;
use iommufd_backend::{Mapping, Pagemap};

use crate::raw::{self, PAGE, answer, attach, detach, map_file};
use crate::refusals::{expect, question};
use crate::{Outcome, pagemap};

const AREA: u64 = 1 << 30;
const LENGTH: u64 = 4 * PAGE;

/// The addresses that the kernel gives for memory are those of pagemap.
struct Check<'a> {
    iommufd: &'a File,
    ioas: u32,
    mapping: Mapping,
    asked: usize,
}

impl Check<'_> {
    /// All pages are there.
    fn present(&mut self, what: &str) -> Result<(), Box<dyn std::error::Error>> {
        // Memory that was not pinned may have moved.
        pagemap::touch(&self.mapping, 0..LENGTH / PAGE);
        let pagemap = Pagemap::open()?;
        for offset in (0..LENGTH).step_by(usize::try_from(PAGE)?) {
            let (found, _) = answer(self.iommufd, self.ioas, AREA + offset, PAGE)?;
            let wanted = pagemap::hpa(&pagemap, self.mapping.start() + offset)?;
            if found != wanted.0 {
                return Err(format!("{what}: {found:#x} instead of {wanted}").into());
            }
            self.asked += 1;
        }
        println!("{what}: is there");
        Ok(())
    }

    /// No device is attached, so the kernel has no table.
    fn without_table(&self, what: &str) -> Result<(), Box<dyn std::error::Error>> {
        expect(
            self.iommufd,
            what,
            question(self.ioas, AREA),
            libc::EOPNOTSUPP,
        )
    }
}

pub fn run(first: Bdf, second: Bdf) -> Outcome {
    let iommufd = raw::iommufd()?;
    let (one, _) = raw::bound(first, &iommufd)?;
    let (other, _) = raw::bound(second, &iommufd)?;
    let ioas = raw::ioas(&iommufd)?;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("shared", flags)?);
    file.set_len(LENGTH)?;
    let mut mapping = Mapping::reserve(LENGTH, 0)?;
    mapping.place(0, FileRange::first(&file, LENGTH), "memory to look up")?;
    // Mapped before any device is attached.
    map_file(&iommufd, ioas, AREA, FileRange::first(&file, LENGTH))?;
    let mut check = Check {
        iommufd: &iommufd,
        ioas,
        mapping,
        asked: 0,
    };
    check.without_table("memory of no device yet")?;
    attach(&one, ioas)?;
    check.present("memory of one device")?;
    attach(&other, ioas)?;
    check.present("memory of two devices")?;
    detach(&one)?;
    check.present("memory of the other device alone")?;
    detach(&other)?;
    check.without_table("memory that both devices left")?;
    attach(&one, ioas)?;
    check.present("memory to which a device came back")?;
    // A second time, which replaces the table by its like.
    attach(&one, ioas)?;
    check.present("memory to which a device was attached twice")?;
    attach(&other, ioas)?;
    drop(one);
    check.present("memory of a device beside one that was closed")?;
    drop(other);
    check.without_table("memory whose devices were closed")?;
    Ok(format!(
        "{} addresses while two devices came and went",
        check.asked
    ))
}
