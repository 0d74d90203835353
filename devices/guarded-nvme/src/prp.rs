// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PRP entries and lists of a guest, page by page (Base 4.3.1).

use address::{Gpa, Hpa};

use crate::guest::{Access, Guest};
use crate::spec::{PAGE, PAGE_BYTES, Status};

const SLOT: u64 = 8;
/// Entries of a list that are read at once: all of a transfer of 128 KiB.
const PORTION: usize = 32;

/// What a command transfers: the two entries of the guest's, and how many bytes the command's own rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// PRP Entry 1.
    pub prp1: u64,
    /// PRP Entry 2: the second page, or a list of all but the first.
    pub prp2: u64,
    /// Bytes: at least one.
    pub bytes: u32,
    /// What the device does to them.
    pub access: Access,
}

/// One page of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Which: 0 is that of PRP Entry 1.
    pub index: u32,
    /// The page, as the guest named it.
    pub gpa: Gpa,
    /// Where it is.
    pub hpa: Hpa,
}

/// What takes the pages of a payload, in order.
pub trait PageSink {
    /// Takes the next page.
    ///
    /// # Errors
    ///
    /// The status of a command that ends here.
    fn page(&mut self, page: Page) -> Result<(), Status>;
}

impl<F: FnMut(Page) -> Result<(), Status>> PageSink for F {
    fn page(&mut self, page: Page) -> Result<(), Status> {
        self(page)
    }
}

impl Payload {
    /// Bytes of the first page before the payload.
    #[must_use]
    pub fn offset(&self) -> u32 {
        crate::bits::low32(self.prp1 % PAGE)
    }

    /// How many pages hold the payload.
    #[must_use]
    pub fn pages(&self) -> u32 {
        let end = self.prp1 % PAGE + u64::from(self.bytes);
        crate::bits::low32(end.div_ceil(PAGE))
    }

    /// Which bytes of the payload page `index` holds, and where they begin in that page.
    #[must_use]
    pub(crate) fn part(&self, index: u32) -> Part {
        let (skipped, page) = (self.prp1 % PAGE, u64::from(index) * PAGE);
        let start = page.saturating_sub(skipped);
        let end = (page + PAGE - skipped).min(self.bytes.into());
        let within = if index == 0 { skipped } else { 0 };
        let size = |value: u64| usize::try_from(value).unwrap_or(PAGE_BYTES);
        Part {
            start: size(start),
            end: size(end),
            within,
        }
    }

    /// Reads the entries, each once, checks and translates them, and gives the pages to `sink`. Returns how many there
    /// are. All low bits are checked here, as controllers may ignore them.
    ///
    /// # Errors
    ///
    /// 0/13 for an offset that is not allowed, 0/04 for an address that is not RAM or not of that access, and what `sink`
    /// returns.
    pub fn walk<G: Guest>(&self, guest: &G, sink: &mut impl PageSink) -> Result<u32, Status> {
        let count = self.pages();
        sink.page(Page {
            index: 0,
            gpa: Gpa(self.prp1).align_down(PAGE),
            hpa: self.first(guest)?,
        })?;
        match count {
            0 | 1 => {}
            2 => self.translate(guest, Named::new(1, self.prp2), sink)?,
            _ => self.walk_list(guest, count, sink)?,
        }
        Ok(count)
    }

    /// Where the page of PRP Entry 1 is.
    pub(crate) fn first<G: Guest>(&self, guest: &G) -> Result<Hpa, Status> {
        if !self.prp1.is_multiple_of(4) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let page = guest.page(Gpa(self.prp1).align_down(PAGE), self.access);
        page.ok_or(Status::DATA_TRANSFER_ERROR)
    }

    /// All pages but the first, of the list at PRP Entry 2. Only its first page can be without progress, so a list that
    /// points to itself ends too.
    #[inline(never)]
    fn walk_list<G: Guest>(
        &self,
        guest: &G,
        count: u32,
        sink: &mut impl PageSink,
    ) -> Result<(), Status> {
        let load = |at: u64| guest.load(Gpa(at)).ok_or(Status::DATA_TRANSFER_ERROR);
        let (mut list, mut next) = (self.prp2, 1);
        if !list.is_multiple_of(SLOT) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        loop {
            let slots = (PAGE - list % PAGE) / SLOT;
            let remaining = u64::from(count - next);
            let is_last = remaining <= slots;
            let entries = if is_last { remaining } else { slots - 1 };
            for portion in (0..entries).step_by(PORTION) {
                let mut words = [[0; size_of::<u64>()]; PORTION];
                let wanted = usize::try_from(entries - portion).unwrap_or(PORTION);
                let words = &mut words[..wanted.min(PORTION)];
                if !guest.read(Gpa(list + portion * SLOT), words.as_flattened_mut()) {
                    return Err(Status::DATA_TRANSFER_ERROR);
                }
                for word in words {
                    let entry = u64::from_le_bytes(*word);
                    self.translate(guest, Named::new(next, entry), sink)?;
                    next += 1;
                }
            }
            if is_last {
                return Ok(());
            }
            list = load(list + entries * SLOT)?;
            if !list.is_multiple_of(PAGE) {
                return Err(Status::INVALID_PRP_OFFSET);
            }
        }
    }

    fn translate<G: Guest>(
        &self,
        guest: &G,
        named: Named,
        sink: &mut impl PageSink,
    ) -> Result<(), Status> {
        let Named { index, address } = named;
        if !address.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let gpa = Gpa(address);
        let hpa = guest
            .page(gpa, self.access)
            .ok_or(Status::DATA_TRANSFER_ERROR)?;
        sink.page(Page { index, gpa, hpa })
    }
}

/// A page of a payload by number, and the address that the guest gave for it.
#[derive(Clone, Copy)]
struct Named {
    index: u32,
    address: u64,
}

impl Named {
    fn new(index: u32, address: u64) -> Self {
        Self { index, address }
    }
}

/// Bytes of a payload in one of its pages.
pub(crate) struct Part {
    /// First byte in the payload.
    pub start: usize,
    /// Past its last byte in the payload.
    pub end: usize,
    /// Where they begin in the page.
    pub within: u64,
}
