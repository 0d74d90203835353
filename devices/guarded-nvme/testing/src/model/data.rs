// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data of commands, and I/O commands.

use address::Hpa;
use guarded_nvme::guest::Access;
use guarded_nvme::spec::{Cdw, Entry, PAGE, Status};

use super::Inner;
use super::queues::Progress;

/// Lists of the monitor's are in chunks of at least this.
const CHUNK: u64 = 512;

/// One piece of a transfer.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: Hpa,
    length: usize,
}

impl Inner {
    /// The pieces of a transfer, with each address checked. A list is the monitor's, and does not chain.
    fn pieces(&self, entry: &Entry, bytes: u64, access: Access) -> Vec<Piece> {
        let offset = entry.prp1() % PAGE;
        let count = (offset + bytes).div_ceil(PAGE);
        let mut pages = vec![entry.prp1() - offset];
        match count {
            0 | 1 => {}
            2 => pages.push(entry.prp2()),
            _ => pages.extend(self.list(Hpa(entry.prp2()), count - 1)),
        }
        let mut left = bytes;
        let mut pieces = Vec::new();
        for (number, page) in pages.into_iter().enumerate() {
            let skipped = if number == 0 { offset } else { 0 };
            assert_eq!(page % PAGE, 0, "a page at {page:#x}");
            self.physical.check(Hpa(page), access, "data");
            let length = left.min(PAGE - skipped);
            left -= length;
            pieces.push(Piece {
                address: Hpa(page + skipped),
                length: usize::try_from(length).expect("a page"),
            });
        }
        pieces
    }

    /// Reads a list, and on to the end of its chunk as some devices do: what is there is a page of the monitor's.
    fn list(&self, list: Hpa, count: u64) -> Vec<u64> {
        let end = list.0 + 8 * count;
        assert!(
            end <= list.align_down(PAGE).0 + PAGE,
            "a list that chains, at {list}"
        );
        let to = end.next_multiple_of(CHUNK);
        let mut pages = Vec::new();
        for at in (list.0..to).step_by(8) {
            self.physical.check_monitor(Hpa(at), "a list");
            let page = self.physical.load(Hpa(at)).expect("memory");
            if at >= end {
                self.physical.check_monitor(Hpa(page), "the rest of a list");
            }
            pages.push(page);
        }
        pages.truncate(usize::try_from(count).expect("a list"));
        pages
    }

    /// Reads memory.
    pub(super) fn gather(&self, entry: &Entry, bytes: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for piece in self.pieces(entry, bytes, Access::Read) {
            let start = data.len();
            data.resize(start + piece.length, 0);
            self.physical.read(piece.address, &mut data[start..]);
        }
        data
    }

    /// Writes memory.
    pub(super) fn scatter(&self, entry: &Entry, data: &[u8]) {
        let mut rest = data;
        for piece in self.pieces(entry, data.len() as u64, Access::Write) {
            let (part, others) = rest.split_at(piece.length);
            rest = others;
            self.physical.write(piece.address, part);
        }
    }

    /// An I/O command. What the monitor lets through has no field that is not listed.
    pub(super) fn io(&mut self, entry: &Entry) -> Progress {
        let opcode = entry.opcode();
        assert!(entry.is_plain(), "{entry:?}");
        if opcode == 0 {
            return Progress::Done(Status::SUCCESS, 0);
        }
        let Some(namespace) = self.namespace(entry.nsid()) else {
            panic!("a namespace that the device does not have: {entry:?}");
        };
        assert_eq!(
            (namespace.metadata, namespace.command_set),
            (0, 0),
            "{entry:?}"
        );
        let first = u64::from(entry.cdw(Cdw::D10)) | u64::from(entry.cdw(Cdw::D11)) << 32;
        let count = u64::from(entry.low(Cdw::D12)) + 1;
        let size = 1 << namespace.block_shift;
        let bytes = count << namespace.block_shift;
        match opcode {
            1 => {
                let data = self.gather(entry, bytes);
                for (lba, block) in (first..).zip(data.chunks(size)) {
                    self.blocks.insert((entry.nsid(), lba), block.to_vec());
                }
            }
            2 => {
                let blocks = (first..first.saturating_add(count))
                    .flat_map(|lba| self.stored(entry.nsid(), lba, size));
                let data: Vec<u8> = blocks.collect();
                self.scatter(entry, &data);
            }
            5 => drop(self.gather(entry, bytes)),
            9 => {
                // Some devices always read a page.
                let ranges = self.gather(entry, PAGE);
                self.physical.check_monitor(Hpa(entry.prp1()), "ranges");
                let last = usize::from(entry.cdw(Cdw::D10).to_le_bytes()[0]);
                for range in ranges.chunks_exact(16).take(last + 1) {
                    self.deallocate(entry.nsid(), range);
                }
            }
            8 | 0xc => assert_eq!([entry.prp1(), entry.prp2()], [0, 0], "no data"),
            _ => panic!("an I/O command that is not allowed: {entry:?}"),
        }
        Progress::Done(Status::SUCCESS, 0)
    }

    fn stored(&self, nsid: u32, lba: u64, size: usize) -> Vec<u8> {
        let block = self.blocks.get(&(nsid, lba)).cloned();
        block.unwrap_or_else(|| vec![0; size])
    }

    fn deallocate(&mut self, nsid: u32, range: &[u8]) {
        let word = |at: usize| {
            let bytes = range[at..at + 4].try_into().expect("four bytes");
            u64::from(u32::from_le_bytes(bytes))
        };
        let (count, first) = (word(4), word(8) | word(12) << 32);
        self.blocks
            .retain(|(of, lba), _| *of != nsid || *lba < first || *lba - first >= count);
    }
}
