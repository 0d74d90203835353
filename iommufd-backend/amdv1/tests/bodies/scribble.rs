// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Walks through arbitrary tables.

use std::cell::Cell;

use address::Iova;
use amdv1::walk::{self, Found};
use amdv1::{Entry, Level, ReadEntry, Root, TableAddress, WalkError};

/// Tables at `BASE`, one after another.
const TABLES: usize = 8;
const BASE: u64 = 0x10_0000;
const HEADER: usize = 10;
const RECORD: usize = 11;
/// Entries that reading all leaves may look at.
const LIMIT: u64 = 2048;

struct Memory {
    entries: Vec<u64>,
    reads: Cell<u64>,
}

impl ReadEntry for Memory {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        assert!(address.is_multiple_of(8) && address < 1 << 52);
        self.reads.set(self.reads.get() + 1);
        let index = usize::try_from(address.checked_sub(BASE)? / 8).ok()?;
        self.entries.get(index).copied().map(Entry)
    }
}

/// Walks the tables that `data` encodes: level and table of the top, an address, then records
/// of table, index and entry.
pub fn scribble(data: &[u8]) {
    let Some((header, records)) = data.split_first_chunk::<HEADER>() else {
        return;
    };
    let mut memory = Memory {
        entries: vec![0; 512 * TABLES],
        reads: Cell::new(0),
    };
    let root = Root {
        table: table(header[1]),
        level: Level::new(header[0] % 6).unwrap(),
    };
    let mut iovas = vec![number(&header[2..])];
    for record in records.chunks_exact(RECORD) {
        let index = usize::from(u16::from_le_bytes([record[1], record[2]])) % 512;
        memory.entries[usize::from(record[0]) % TABLES * 512 + index] =
            entry(record[0], number(&record[3..]));
        let level = Level::new(record[0] % 6).unwrap();
        iovas.push((index as u64) << level.item_lg2() | iovas.last().unwrap() >> 9);
    }
    for iova in iovas {
        check_walk(&memory, root, Iova(iova));
        check_run(&memory, root, Iova(iova));
    }
    check_leaves(&memory, root);
}

fn table(number: u8) -> TableAddress {
    TableAddress::new(BASE + u64::from(number) % TABLES as u64 * 4096).unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

/// Half of the entries are taken as they are; the other half point to one of the tables, so
/// that trees, cycles and shared tables are common.
fn entry(table_number: u8, raw: u64) -> u64 {
    if table_number < 128 {
        return raw;
    }
    let address = table(raw.to_le_bytes()[2]).get();
    raw & !0x000f_ffff_ffff_f000 | address
}

fn check_walk(memory: &Memory, root: Root, iova: Iova) {
    memory.reads.set(0);
    let found = walk::walk(memory, root, iova);
    assert!(memory.reads.get() <= 6);
    match found {
        Ok(Found::Leaf(leaf)) => {
            let bytes = leaf.size.bytes();
            assert!(leaf.iova <= iova && iova <= leaf.last_iova());
            assert!(leaf.iova.is_aligned(bytes) && leaf.hpa.is_aligned(bytes));
            assert!(leaf.hpa.0 + bytes <= 1 << 52);
            assert_eq!(leaf.hpa_of(iova) - leaf.hpa, iova - leaf.iova);
        }
        Ok(Found::Hole { last }) => assert!(last >= iova),
        Err(WalkError::TooLarge { .. }) => panic!("one walk has no limit"),
        Err(_) => {}
    }
}

fn check_run(memory: &Memory, root: Root, iova: Iova) {
    for len in [0, 1, 4096, 0x12_3456, 1 << 24] {
        let run = walk::run(memory, root, iova, len);
        match walk::walk(memory, root, iova) {
            Ok(Found::Leaf(leaf)) if len != 0 => {
                let run = run.unwrap().unwrap();
                assert_eq!(run.hpa, leaf.hpa_of(iova));
                assert!((1..=len).contains(&run.len));
                let mut covered = leaf.last_iova();
                while covered - iova < run.len - 1 {
                    let Ok(Found::Leaf(next)) = walk::walk(memory, root, covered + 1) else {
                        panic!("a run into nothing");
                    };
                    assert_eq!(next.hpa - run.hpa, next.iova - iova);
                    covered = next.last_iova();
                }
            }
            Ok(_) => assert_eq!(run, Ok(None)),
            Err(error) => assert_eq!(run, Err(error)),
        }
    }
}

fn check_leaves(memory: &Memory, root: Root) {
    memory.reads.set(0);
    let mut next = Some(Iova(0));
    for leaf in walk::leaves(memory, root, Iova(0)..=Iova(u64::MAX), LIMIT) {
        let Ok(leaf) = leaf else { break };
        assert!(next.is_some_and(|next| next <= leaf.iova));
        next = leaf.last_iova().checked_add(1);
    }
    assert!(memory.reads.get() <= 6 * LIMIT);
}
