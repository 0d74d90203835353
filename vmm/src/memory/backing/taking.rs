// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the pool's hugepages become guest RAM: they are taken, looked at and chosen among; the rest is given back.
//!
//! `/proc/self/pagemap` shows where pages are to a process with CAP_SYS_ADMIN, which then pins only those that it keeps.
//! Another process pins pages to see where they are, and so does one whose kernel may move pages to pin them.

use std::fs::File;
use std::ops::Range;

use address::Hpa;
use host::SysRoot;
use iommufd_backend::hugepages::{self, HugepageSize};
use iommufd_backend::{NoiommuSpace, PinRequest, UnpinnedView, extent};

use super::{Backing, COOKIE, PinError, check_reached, in_file, populate, steps};
use crate::error::explain::process;
use crate::memory::choice::{self, Choice, PageRequirements};
use crate::memory::progress::Progress;

/// Bytes that are taken in one piece at most, unless a page has more. To give a page of a pinned piece back, all of the
/// piece is unpinned, which takes the kernel time for each 4 KiB (Linux 7.3: some 190 instructions); to pin hugepages takes
/// next to none.
pub(super) const PIECE: u64 = 32 << 20;

/// Hugepages that are being taken, in the order of their file.
pub(super) struct Taking<'a> {
    pub(super) file: File,
    pub(super) size: HugepageSize,
    /// How many the guest is to have.
    pub(super) wanted: u64,
    pub(super) space: &'a mut NoiommuSpace,
    /// Shows where pages are that are not pinned, if this process can see it.
    pub(super) view: Option<UnpinnedView>,
    /// Where each one is.
    pub(super) pages: Vec<Hpa>,
    /// What is pinned in one piece: numbers of pages, in order. Empty if nothing is pinned before it is chosen.
    pub(super) pieces: Vec<Range<usize>>,
    /// Whether the pool gives the highest first, as it does once a guest has returned pages that ascend.
    pub(super) descends: bool,
}

/// Shows where pages are before they are pinned, up to `len` bytes at once. `None` if that is hidden, or would not last.
pub(super) fn view(len: u64) -> Option<UnpinnedView> {
    let view = match host::movable_memory(&SysRoot::default()) {
        Some(word) => Err(format!("pinning may move them ({word})")),
        None => UnpinnedView::new(len).map_err(|error| error.to_string()),
    };
    view.inspect_err(|why| log::debug!("hugepages are pinned before they are chosen: {why}"))
        .ok()
}

impl Taking<'_> {
    /// Bytes that are taken.
    pub(super) fn taken(&self) -> u64 {
        self.pages.len() as u64 * self.size.bytes()
    }

    /// Takes `bytes` more in one piece, so that neighbours in the file are neighbours in memory as far as the
    /// pool has them: each run of these is mapped at once.
    pub(super) fn more(&mut self, bytes: u64) -> Result<(), PinError> {
        let offset = self.taken();
        if bytes == 0 {
            return Ok(());
        }
        let step = match self.descends {
            true => self.size.bytes(),
            false => bytes,
        };
        // The kernel fills a range from its begin on: where the pool descends, pages are taken from the end of the range
        // backwards, so that they ascend in the file.
        let parts: Vec<_> = steps(bytes, step).collect();
        for part in parts.into_iter().rev() {
            let range = offset + part.start..offset + part.end;
            populate(&self.file, range, self.size, self.wanted)?;
        }
        let piece = self.number(offset)..self.number(offset + bytes);
        let pages = match &mut self.view {
            Some(view) => {
                let extents = view.look(&request(&self.file, self.size, &piece))?;
                pages(&extents, self.size)
            }
            None => self.pin(piece.clone())?,
        };
        // The pages that were taken last, and their order in the file.
        let last = match self.descends {
            true => pages.first_chunk(),
            false => pages.last_chunk(),
        };
        // Pages of two runs say nothing.
        if let Some([page, next]) = last
            && page.0.abs_diff(next.0) == self.size.bytes()
        {
            self.descends = (next < page) != self.descends;
        }
        self.pages.extend(pages);
        if self.view.is_none() {
            self.pieces.push(piece);
        }
        Ok(())
    }

    /// The number of the page at `offset` of the file, which has no more bytes than addresses.
    fn number(&self, offset: u64) -> usize {
        usize::try_from(offset / self.size.bytes()).unwrap_or(usize::MAX)
    }

    /// Pins pages in one piece. Returns where each one is.
    fn pin(&mut self, piece: Range<usize>) -> Result<Vec<Hpa>, PinError> {
        let extents = self.space.pin(&request(&self.file, self.size, &piece))?;
        Ok(pages(&extents, self.size))
    }

    /// Of a piece that is not pinned, returns the pages that are not in `kept` to the pool, and pins the others. The kernel
    /// may move pages while they are not pinned, so their addresses are read again.
    fn reduce(&mut self, piece: Range<usize>, kept: &[usize]) -> Result<(), PinError> {
        for gap in gaps(kept, piece).into_iter().rev() {
            let (offset, len) = bytes(&gap, self.size);
            hugepages::give_back(&self.file, offset, len)?;
        }
        for run in kept.chunk_by(|number, next| number + 1 == *next) {
            let run = run[0]..run[0] + run.len();
            let pages = self.pin(run.clone())?;
            self.pages.splice(run, pages);
        }
        Ok(())
    }

    /// Where the pages of these numbers are.
    fn at(&self, numbers: &[usize]) -> Vec<Hpa> {
        numbers.iter().map(|number| self.pages[*number]).collect()
    }

    /// Takes `count` pages more; returns whether it got them. Fewer pages than expected, or a limit
    /// on locked memory, are not errors.
    fn spare(&mut self, count: u64, progress: &Progress) -> bool {
        progress.expect(count * self.size.bytes());
        let (mut left, mut step) = (count * self.size.bytes(), PIECE.max(self.size.bytes()));
        while left > 0 {
            let bytes = left.min(step);
            match self.more(bytes) {
                Ok(()) => {
                    left -= bytes;
                    progress.advance(bytes);
                }
                // A part of it may be possible. What there is of it may be at its end.
                Err(_) if bytes > self.size.bytes() => {
                    step = self.size.bytes();
                    if let Err(error) = hugepages::give_back(&self.file, self.taken(), bytes) {
                        log::debug!("spare hugepages: {error}");
                    }
                }
                Err(error) => {
                    log::debug!(
                        "{} spare hugepages are not available: {error}",
                        self.size.pages_for(left)
                    );
                    return false;
                }
            }
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

    /// Returns the pages that are not chosen to the pool; the others are pinned then.
    ///
    /// # Errors
    /// [`PinError::Backend`], [`PinError::Process`]; [`PinError::OutOfReach`] if a page moved meanwhile.
    pub(super) fn keep(
        mut self,
        choice: Choice,
        required: &PageRequirements<'_>,
    ) -> Result<Backing, PinError> {
        let page_size = self.size.bytes();
        let chosen: Vec<Hpa> = self.at(&choice.kept);
        // The file may hold a page that could not be pinned.
        let file_end = self
            .file
            .metadata()
            .map_err(process("size guest memory"))?
            .len();
        if self.view.take().is_some() {
            self.reduce(0..self.pages.len(), &choice.kept)?;
        }
        for piece in std::mem::take(&mut self.pieces).into_iter().rev() {
            let place = |number: usize| choice.kept.partition_point(|kept| *kept < number);
            let kept = &choice.kept[place(piece.start)..place(piece.end)];
            if kept.len() < piece.len() {
                let (offset, len) = bytes(&piece, self.size);
                self.space.unpin(COOKIE + offset, len)?;
                self.reduce(piece, kept)?;
            }
        }
        let choice = match self.at(&choice.kept) {
            kept if kept == chosen => choice,
            moved => choice.of_moved(&moved, page_size, required),
        };
        check_reached(&choice, required.pages)?;
        let taken = self.taken();
        if taken < file_end {
            hugepages::give_back(&self.file, taken, file_end - taken)?;
        }
        let extents = choice.kept.iter().map(|number| {
            let iova = COOKIE + *number as u64 * page_size;
            extent::Extent::new(iova, self.pages[*number], page_size)
        });
        let extents: Vec<_> = extents
            .collect::<Result<_, _>>()
            .map_err(iommufd_backend::Error::from)?;
        let spare = self.pages.len() - choice.kept.len();
        if spare > 0 {
            log::info!(
                "hugepages: {} more were taken and returned: {} extents instead of {}, which \
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

/// Where `numbers` of pages are in their file: the offset and the length in bytes.
fn bytes(numbers: &Range<usize>, size: HugepageSize) -> (u64, u64) {
    let (first, count) = (numbers.start as u64, numbers.len() as u64);
    (first * size.bytes(), count * size.bytes())
}

/// Pages of these numbers.
fn request<'a>(file: &'a File, size: HugepageSize, numbers: &Range<usize>) -> PinRequest<'a> {
    let (offset, len) = bytes(numbers, size);
    PinRequest {
        file,
        offset,
        len,
        page_size: size.bytes(),
        iova: COOKIE + offset,
    }
}

/// Where each page of `extents` is.
fn pages(extents: &[extent::Extent], size: HugepageSize) -> Vec<Hpa> {
    let pages = extents.iter().flat_map(|extent| {
        let numbers = 0..extent.len() / size.bytes();
        numbers.map(|number| extent.hpa() + number * size.bytes())
    });
    pages.collect()
}

/// What `kept`, which ascend, leave out of `all` numbers.
pub(super) fn gaps(kept: &[usize], all: Range<usize>) -> Vec<Range<usize>> {
    let starts = std::iter::once(all.start).chain(kept.iter().map(|number| number + 1));
    let ends = kept.iter().copied().chain([all.end]);
    starts
        .zip(ends)
        .map(|(start, end)| start..end)
        .filter(|gap| !gap.is_empty())
        .collect()
}
