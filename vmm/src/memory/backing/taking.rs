// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the pool's hugepages become guest RAM: they are taken and pinned, chosen among, and the rest is given back.

use std::fs::File;
use std::ops::Range;

use address::Hpa;
use iommufd_backend::hugepages::{self, HugepageSize};
use iommufd_backend::{NoiommuSpace, PinRequest, extent};

use super::{Backing, COOKIE, PinError, STEP, in_file, populate, steps};
use crate::error::explain::process;
use crate::memory::choice::{self, Choice, PageRequirements};
use crate::memory::progress::Progress;

/// Hugepages that are being taken and pinned, in the order of their file.
pub(super) struct Taking<'a> {
    pub(super) file: File,
    pub(super) size: HugepageSize,
    /// How many the guest is to have.
    pub(super) wanted: u64,
    pub(super) space: &'a mut NoiommuSpace,
    /// Where each one is.
    pub(super) pages: Vec<Hpa>,
    /// Whether the pool gives the highest first, as it does once a guest has returned pages that ascend.
    pub(super) descends: bool,
}

impl Taking<'_> {
    /// Bytes that are taken.
    pub(super) fn taken(&self) -> u64 {
        self.pages.len() as u64 * self.size.bytes()
    }

    /// Takes `bytes` more, so that neighbours in the file are neighbours in memory as far as the pool has them: each
    /// run of these is mapped in one piece.
    pub(super) fn more(&mut self, bytes: u64) -> Result<(), PinError> {
        let offset = self.taken();
        if bytes == 0 {
            return Ok(());
        }
        let step = match self.descends {
            true => self.size.bytes(),
            false => bytes,
        };
        // The kernel fills a range from its begin on.
        let parts: Vec<_> = steps(bytes, step).collect();
        for part in parts.into_iter().rev() {
            let range = offset + part.start..offset + part.end;
            populate(&self.file, range, self.size, self.wanted)?;
        }
        self.pin(offset, bytes)?;
        if let [first, second] = self.pages[..] {
            self.descends = second < first;
        }
        Ok(())
    }

    /// Pins what was taken again, each page by itself, so that it can be given back by itself. Pages that are not
    /// pinned for a moment may move, so the kernel is asked for all of them anew.
    pub(super) fn pin_page_by_page(&mut self) -> Result<(), PinError> {
        let page_size = self.size.bytes();
        let end = self.pages.len() as u64 * page_size;
        for range in steps(end, STEP.max(page_size)) {
            let area = COOKIE + range.start;
            self.space.unpin(area, range.end - range.start)?;
        }
        self.pages.clear();
        for range in steps(end, page_size) {
            self.pin(range.start, page_size)?;
        }
        Ok(())
    }

    /// Pins `bytes` of the file from `offset` on, the end of what is pinned.
    fn pin(&mut self, offset: u64, bytes: u64) -> Result<(), PinError> {
        let page_size = self.size.bytes();
        let extents = self.space.pin(&PinRequest {
            file: &self.file,
            offset,
            len: bytes,
            page_size,
            iova: COOKIE + offset,
        })?;
        for extent in extents {
            let count = extent.len() / page_size;
            let page = |number| extent.hpa() + number * page_size;
            self.pages.extend((0..count).map(page));
        }
        Ok(())
    }

    /// Takes `count` pages more; returns whether it got them. Fewer pages than expected, or a limit
    /// on locked memory, are not errors.
    fn spare(&mut self, count: u64, progress: &Progress) -> bool {
        progress.expect(count * self.size.bytes());
        for done in 0..count {
            if let Err(error) = self.more(self.size.bytes()) {
                log::debug!("only {done} spare hugepages are available: {error}");
                return false;
            }
            progress.advance(self.size.bytes());
        }
        true
    }

    /// Takes `spare` pages more, and as many as that up to `most`, which is 0 if none are wanted, until the kernel
    /// has its place and memory is in no more pieces than are safe; then chooses among all.
    pub(super) fn choose(
        &mut self,
        spare: u64,
        most: u64,
        required: &PageRequirements<'_>,
        progress: &Progress,
    ) -> Choice {
        let page_size = self.size.bytes();
        let mut left = most;
        loop {
            let choice = choice::choose(&self.pages, page_size, required);
            // Spare pages are looked at once, even where the first ones would do: they may be better.
            let is_all = choice.kept.len() == required.pages;
            let is_enough = is_all && choice.placed && choice.is_safe();
            if left == 0 || is_enough && self.pages.len() > required.pages {
                return choice;
            }
            // Ever more, so that a large pool is not searched hundreds of times.
            let count = left.min(spare.max(self.pages.len() as u64 / 2));
            left -= count;
            if !self.spare(count, progress) {
                left = 0;
            }
        }
    }

    /// Releases what is not chosen.
    pub(super) fn keep(self, choice: Choice) -> Result<Backing, PinError> {
        let page_size = self.size.bytes();
        let bytes = |number: usize| number as u64 * page_size;
        // The file may hold a page that could not be pinned.
        let file_end = self
            .file
            .metadata()
            .map_err(process("size guest memory"))?
            .len();
        for gap in gaps(&choice.kept, self.pages.len()).into_iter().rev() {
            let (offset, len) = (bytes(gap.start), bytes(gap.len()));
            self.space.unpin(COOKIE + offset, len)?;
            hugepages::give_back(&self.file, offset, len)?;
        }
        let taken = bytes(self.pages.len());
        if taken < file_end {
            hugepages::give_back(&self.file, taken, file_end - taken)?;
        }
        let extents = choice.kept.iter().map(|number| {
            let iova = COOKIE + bytes(*number);
            extent::Extent::new(iova, self.pages[*number], page_size)
        });
        let extents: Vec<_> = extents
            .collect::<Result<_, _>>()
            .map_err(iommufd_backend::Error::from)?;
        let spare = self.pages.len() - choice.kept.len();
        if spare > 0 {
            log::info!(
                "hugepages: {} more were pinned and released: {} extents instead of {}, which \
                 saves the guest's kernel {} KiB",
                spare,
                choice.chosen.extents,
                choice.naive.extents,
                choice.naive.bytes().saturating_sub(choice.chosen.bytes()) / 1024
            );
        }
        Ok(Backing {
            file: Some(self.file),
            page_size,
            extents: in_file(extents),
            choice: Some(choice),
        })
    }
}

/// What `kept`, which ascend, leave out of `count` numbers.
pub(super) fn gaps(kept: &[usize], count: usize) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(kept.iter().map(|number| number + 1));
    let ends = kept.iter().copied().chain([count]);
    starts
        .zip(ends)
        .map(|(start, end)| start..end)
        .filter(|gap| !gap.is_empty())
        .collect()
}
