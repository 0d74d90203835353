// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where this process's pages are, by `/proc/self/pagemap`
//! (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use address::{Hpa, Hva, Iova};

use crate::error::Error;
use crate::extent::{Extent, merge};
use crate::mapping::Mapping;
use crate::page_size::host_page_size;
use crate::pin_request::PinRequest;

const PATH: &str = "/proc/self/pagemap";
/// Bytes of an entry.
const ENTRY: usize = 8;
/// Entries that are read at once.
const AT_ONCE: usize = 8192;

const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// What the kernel reports about one of its pages, also about each of those that make up a larger
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// It is not in the page tables of this process.
    Absent,
    /// It is, but the kernel hides where: the file was opened without CAP_SYS_ADMIN
    /// (fs/proc/task_mmu.c pagemap_open).
    Hidden,
    /// It is here.
    At(Hpa),
}

impl PageState {
    /// By an entry of a kernel whose pages have `page` bytes.
    fn of(entry: u64, page: u64) -> Self {
        match (entry & PRESENT, entry & FRAME) {
            (0, _) => Self::Absent,
            (_, 0) => Self::Hidden,
            (_, frame) => Self::At(Hpa(frame.saturating_mul(page))),
        }
    }
}

/// The file, open.
#[derive(Debug)]
pub struct Pagemap {
    pub(crate) file: File,
    /// What an entry is about, in bytes.
    page: u64,
}

impl Pagemap {
    /// Opens it for this process.
    ///
    /// # Errors
    /// [`Error::Read`], also where the kernel has no such file (CONFIG_PROC_PAGE_MONITOR).
    pub fn open() -> Result<Self, Error> {
        Self::open_at(PATH.into())
    }

    pub(crate) fn open_at(path: PathBuf) -> Result<Self, Error> {
        match File::open(&path) {
            Ok(file) => Ok(Self::from(file)),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Opens it, and makes sure that it shows where pages are.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::AddressesHidden`] without CAP_SYS_ADMIN.
    pub(crate) fn open_shown() -> Result<Self, Error> {
        let pagemap = Self::open()?;
        // In the page tables as long as it is in use.
        let variable = 0_u8;
        let here = Hva(std::ptr::from_ref(&variable).expose_provenance() as u64);
        let shown = pagemap.pages(here, 1, pagemap.page).next();
        match shown {
            Some(Ok(PageState::At(_))) => Ok(pagemap),
            Some(Err(error)) => Err(error),
            Some(Ok(PageState::Hidden | PageState::Absent)) | None => Err(Self::hidden()),
        }
    }

    /// The error that the file hides where pages are.
    #[must_use]
    pub fn hidden() -> Error {
        Error::AddressesHidden { path: PATH.into() }
    }

    /// Where the memory of `request` is, in IOVA order and merged, once it is at the begin of `mapping`.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Read`], [`Error::AddressesHidden`], [`Error::PageAbsent`], [`Error::Misaligned`],
    /// [`Error::Extent`]
    pub(crate) fn places(
        &self,
        mapping: &Mapping,
        request: &PinRequest<'_>,
    ) -> Result<Vec<Extent>, Error> {
        mapping.populate_first(request.len)?;
        let pages = self.pages(mapping.start(), request.len, request.page_size);
        let extents = (0..).zip(pages).map(|(number, state)| {
            let iova = request.iova + number * request.page_size;
            extent(request, iova, state?)
        });
        Ok(merge(extents.collect::<Result<Vec<_>, _>>()?))
    }

    /// What the kernel reports about `len` bytes from `start` on: one state for each `page_size` bytes, or for each
    /// page of the kernel's if that is larger. Where `page_size` is larger, `start` is the begin of a page of that size,
    /// and of each page only the begin is read: the kernel takes some 30 instructions for each of its pages that is read.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn pages(
        &self,
        start: Hva,
        len: u64,
        page_size: u64,
    ) -> impl Iterator<Item = Result<PageState, Error>> {
        let page = self.page;
        let stride = (page_size / page).max(1);
        let at_once = if stride == 1 { AT_ONCE } else { 1 };
        let first = start.0 / page;
        let end = start.0.saturating_add(len).div_ceil(page);
        let mut next = first;
        let mut buffer = Vec::new();
        let mut taken = 0;
        std::iter::from_fn(move || {
            if taken == buffer.len() {
                let left = end.saturating_sub(next).div_ceil(stride);
                let left = usize::try_from(left).unwrap_or(at_once);
                buffer.resize(left.min(at_once) * ENTRY, 0);
                if buffer.is_empty() {
                    return None;
                }
                if let Err(source) = self.file.read_exact_at(&mut buffer, next * ENTRY as u64) {
                    next = end;
                    buffer.clear();
                    return Some(Err(read_error(source)));
                }
                next += (buffer.len() / ENTRY) as u64 * stride;
                taken = 0;
            }
            let entry = buffer.get(taken..)?.first_chunk::<ENTRY>()?;
            taken += ENTRY;
            Some(Ok(PageState::of(u64::from_ne_bytes(*entry), page)))
        })
    }
}

impl From<File> for Pagemap {
    /// The one that `file` is, which shows the address space of the process that it was opened for
    /// (fs/proc/task_mmu.c pagemap_open), and addresses if whoever opened it has CAP_SYS_ADMIN.
    fn from(file: File) -> Self {
        let page = host_page_size();
        Self { file, page }
    }
}

/// A view of memory that is not pinned, for one part of a file after the other.
#[derive(Debug)]
pub struct UnpinnedView {
    pagemap: Pagemap,
    mapping: Mapping,
}

impl UnpinnedView {
    /// For parts of `len` bytes at most, a multiple of their pages.
    ///
    /// # Errors
    /// [`Error::AddressesHidden`] without CAP_SYS_ADMIN, [`Error::Read`], [`Error::Map`]
    pub fn new(len: u64) -> Result<Self, Error> {
        Ok(Self {
            pagemap: Pagemap::open_shown()?,
            mapping: Mapping::reserve(len, 0)?,
        })
    }

    /// Where the memory of `request` is now, in IOVA order and merged: the kernel may move it as long as it is not pinned.
    /// Pages that the file does not have yet are taken.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Read`], [`Error::PageAbsent`], [`Error::Misaligned`], [`Error::Extent`]
    pub fn look(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
        let what = "memory that is looked at";
        self.mapping.place(0, request.part(), what)?;
        self.pagemap.places(&self.mapping, request)
    }
}

/// The page at `iova`, of which the kernel reports `state`.
fn extent(request: &PinRequest<'_>, iova: Iova, state: PageState) -> Result<Extent, Error> {
    match state {
        PageState::At(hpa) => request.page(iova, hpa),
        PageState::Hidden => Err(Pagemap::hidden()),
        PageState::Absent => Err(Error::PageAbsent { iova }),
    }
}

fn read_error(source: std::io::Error) -> Error {
    Error::Read {
        path: PathBuf::from(PATH),
        source,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::file_range::FileRange;

    const PAGE: u64 = 4096;
    const COOKIE: Iova = Iova(1 << 30);

    /// A file in memory: the kernel takes pages of others back at any time.
    pub(crate) fn file(len: u64) -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("pages", flags).unwrap());
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn a_page_is_where_the_kernel_shows_it_or_there_is_an_error() {
        let file = file(PAGE);
        let request = PinRequest {
            file: &file,
            offset: 0,
            len: 2 << 20,
            page_size: 2 << 20,
            iova: COOKIE,
        };
        let of = |state| extent(&request, COOKIE, state);
        let at = of(PageState::At(Hpa(0x4020_0000))).unwrap();
        assert_eq!((at.hpa(), at.len()), (Hpa(0x4020_0000), 2 << 20));
        let odd = of(PageState::At(Hpa(0x4020_1000)));
        assert!(matches!(odd, Err(Error::Misaligned { .. })));
        let absent = of(PageState::Absent);
        assert!(matches!(absent, Err(Error::PageAbsent { iova: COOKIE })));
        let hidden = of(PageState::Hidden);
        assert!(matches!(hidden, Err(Error::AddressesHidden { .. })));
    }

    #[test]
    fn memory_that_is_not_pinned_is_looked_at_where_it_is() {
        let mut view = match UnpinnedView::new(6 * PAGE) {
            Ok(view) => view,
            Err(error @ Error::AddressesHidden { .. }) => {
                eprintln!("not tested, for want of CAP_SYS_ADMIN: {error}");
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let file = file(6 * PAGE);
        let mut places = |page: u64, count: u64| {
            let request = PinRequest {
                file: &file,
                offset: page * PAGE,
                len: count * PAGE,
                page_size: PAGE,
                iova: COOKIE + page * PAGE,
            };
            let extents = view.look(&request).unwrap();
            assert_eq!(extents[0].iova(), request.iova);
            let pages = extents.iter().flat_map(|extent| {
                let numbers = 0..extent.len() / PAGE;
                numbers.map(|number| extent.hpa() + number * PAGE)
            });
            pages.collect::<Vec<_>>()
        };
        let all = places(0, 6);
        assert_eq!((all.len(), places(2, 3).as_slice()), (6, &all[2..5]));
        let too_long = PinRequest {
            file: &file,
            offset: 0,
            len: 7 * PAGE,
            page_size: PAGE,
            iova: COOKIE,
        };
        assert!(matches!(view.look(&too_long), Err(Error::Map { .. })));
    }

    #[test]
    fn each_page_of_a_request_is_looked_at() {
        // As far apart as the ends of a run, with another page between them.
        let frames = [100, 700, 102];
        let memory = file(frames.len() as u64 * PAGE);
        let request = PinRequest {
            file: &memory,
            offset: 0,
            len: frames.len() as u64 * PAGE,
            page_size: PAGE,
            iova: COOKIE,
        };
        let mut mapping = Mapping::reserve(request.len, 0).unwrap();
        mapping.place(0, request.part(), "a file").unwrap();
        let shown = file(1 << 40);
        for (number, frame) in (0..).zip(frames) {
            let offset = (mapping.start().0 / PAGE + number) * ENTRY as u64;
            let entry = PRESENT | frame;
            shown.write_all_at(&entry.to_ne_bytes(), offset).unwrap();
        }
        let places = Pagemap::from(shown).places(&mapping, &request).unwrap();
        let found = places.iter().map(|extent| extent.hpa().0 / PAGE);
        assert_eq!(found.collect::<Vec<_>>(), frames);
    }

    #[test]
    fn entries_are_taken_apart() {
        for (entry, state) in [
            (0, PageState::Absent),
            (1 << 62 | 5, PageState::Absent),
            (PRESENT, PageState::Hidden),
            (PRESENT | 1 << 61 | 1 << 55, PageState::Hidden),
            (PRESENT | 1 << 61 | 0x12345, PageState::At(Hpa(0x1234_5000))),
            (PRESENT | FRAME, PageState::At(Hpa(u64::MAX))),
        ] {
            assert_eq!(PageState::of(entry, PAGE), state, "{entry:#x}");
        }
        for (page, hpa) in [(0x4000, 0x48d1_4000), (0x1_0000, 0x1_2345_0000)] {
            let state = PageState::of(PRESENT | 0x12345, page);
            assert_eq!(state, PageState::At(Hpa(hpa)), "{page:#x}");
        }
    }

    #[test]
    fn every_page_of_a_mapping_is_shown_once_it_is_populated() {
        // More than are read at once.
        let pages = AT_ONCE as u64 + 3;
        let file = file(pages * PAGE);
        let mut mapping = Mapping::reserve(pages * PAGE, 0).unwrap();
        let part = FileRange::first(&file, pages * PAGE);
        mapping.place(0, part, "a file").unwrap();
        let pagemap = Pagemap::open().unwrap();
        let states = || -> Vec<_> {
            let all = pagemap.pages(mapping.start(), mapping.len(), PAGE);
            all.collect::<Result<_, _>>().unwrap()
        };
        assert_eq!(states(), vec![PageState::Absent; AT_ONCE + 3]);
        mapping.populate().unwrap();
        assert!(!states().contains(&PageState::Absent));
        assert_eq!(states().len() as u64, pages);
        assert_eq!(pagemap.pages(mapping.start(), 0, PAGE).count(), 0);
        assert_eq!(pagemap.pages(mapping.start() + 5, PAGE, PAGE).count(), 2);
        let beyond = pagemap.pages(Hva(u64::MAX - 5), 5, PAGE);
        assert!(beyond.count() <= 1);
        // Every third page, and the last ones that are no whole three.
        let len = 7 * PAGE;
        let all = |size| -> Vec<_> {
            let states = pagemap.pages(mapping.start(), len, size);
            states.collect::<Result<_, _>>().unwrap()
        };
        let expected: Vec<_> = all(PAGE).into_iter().step_by(3).collect();
        assert_eq!((expected.len(), all(3 * PAGE)), (3, expected));
    }
}
