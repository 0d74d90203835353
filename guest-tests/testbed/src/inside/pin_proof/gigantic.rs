// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Hugepages of 1 GiB, for which the kernel moves what is in the way (Linux mm/page_alloc.c, `alloc_contig_pages`).

use std::fs::{self, File};
use std::io;
use std::ops::Range;

use rustix::fs::{MemfdFlags, memfd_create};

use super::super::pages::{Mapping, PAGE, pagemap};
use super::page::{FOLDER, Kind, Page};
use crate::error::{AtPath, Error, Result};

const SIZE: usize = 1 << 30;
const NAME: &str = "a memfd of one hugepage of 1 GiB";

/// The frames that the kernel makes such a page of: the first of node 1, in their order, in which all can be moved.
///
/// # Errors
/// [`Error::Usage`] if there are none such, [`Error::File`]
pub fn first() -> Result<Range<u64>> {
    let made = Made::try_new()?.ok_or_else(|| Error::Usage("No page of 1 GiB is made".into()))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB;
    let file: File = memfd_create("gigantic", flags)
        .map_err(io::Error::from)
        .at("create", NAME)?
        .into();
    file.set_len(SIZE as u64).at("size", NAME)?;
    let mapping = Mapping::of_file(&file, 0, SIZE).at("map", NAME)?;
    let frame = mapping.frames(&pagemap()?)?.first().copied().flatten();
    drop(mapping);
    drop(file);
    drop(made);
    let frame = frame.ok_or_else(|| Error::Usage("A locked page is not present".into()))?;
    Ok(frame..frame + (SIZE / PAGE) as u64)
}

/// Has the kernel make such a page while `page` is in the way, and returns whether it did. It is given back.
///
/// # Errors
/// [`Error::File`]
pub fn make(page: &Page) -> Result<bool> {
    if page.kind() == Kind::Huge {
        // Without its free pages, of which Linux 6.12 moves none.
        set_pool("2048", "0")?;
    }
    Ok(Made::try_new()?.is_some())
}

/// A page of 1 GiB in node 1's pool, until it is dropped.
struct Made;

impl Made {
    fn try_new() -> Result<Option<Self>> {
        set_pool("1048576", "1")?;
        let path = pool("1048576");
        let made = fs::read_to_string(&path).at("read", &path)?;
        Ok((made.trim() == "1").then_some(Self))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = set_pool("1048576", "0") {
            println!("{error}");
        }
    }
}

fn set_pool(kib: &str, pages: &str) -> Result<()> {
    let path = pool(kib);
    fs::write(&path, pages).at("write", &path)
}

fn pool(kib: &str) -> String {
    format!("{FOLDER}/hugepages/hugepages-{kib}kB/nr_hugepages")
}
