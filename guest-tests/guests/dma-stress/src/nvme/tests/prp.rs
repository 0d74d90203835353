// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PRP builder against what a controller makes of its result.

use std::vec::Vec;

use proptest::prelude::*;

use super::machine::{Buffer, Memory, POISON};
use super::pieces::pieces;
use crate::nvme::{DmaBuffer, PAGE_BYTES, Prp, PrpBuilder, PrpError, PrpList, Shape};

/// Addresses of pages that nothing is read from.
fn addresses(count: usize) -> Vec<u64> {
    (0..count as u64)
        .map(|page| 0x7000_0000_0000 + (page ^ 5) * 0x3000)
        .collect()
}

/// The plain definition of a transfer's bytes.
fn reference(pages: &[u64], offset: usize, bytes: usize) -> Vec<(u64, usize)> {
    let mut expected: Vec<(u64, usize)> = Vec::new();
    for at in (offset..offset + bytes).step_by(4) {
        let address = pages[at / PAGE_BYTES] + (at % PAGE_BYTES) as u64;
        match expected.last_mut() {
            Some((start, len))
                if !address.is_multiple_of(4096) && *start + *len as u64 == address =>
            {
                *len += 4;
            }
            _ => expected.push((address, 4)),
        }
    }
    expected
}

fn build(pages: &[u64], offset: u64, bytes: u64, list: &PrpList<'_, Buffer>) -> Prp {
    PrpBuilder::new(pages, offset, bytes)
        .and_then(|builder| builder.build(list))
        .expect("a data pointer")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_controller_finds_the_bytes_that_were_described(
        pages in prop_oneof![1_usize..6, 500_usize..530, 1..1700_usize],
        offset in prop_oneof![Just(0_usize), 0..1024_usize],
        cut in 0..1024_usize,
        first_entry in prop_oneof![0..512_usize, 505..512_usize],
        first_page in 0..3_usize,
    ) {
        let memory = Memory::default();
        let (offset, cut) = (offset * 4, cut * 4);
        let bytes = (pages * PAGE_BYTES - offset).saturating_sub(cut).max(4);
        let pages = addresses(pages);
        let builder = PrpBuilder::new(&pages, offset as u64, bytes as u64).unwrap();
        let need = builder.list_pages(first_entry);
        let buffer = memory.pages(first_page + need + 1, POISON);
        let list = PrpList { buffer: &buffer, first_page, first_entry };
        let prp = builder.build(&list).unwrap();

        prop_assert_eq!(prp.bytes(), bytes as u64);
        let found = pieces(&memory, prp.prp1(), prp.prp2(), bytes).unwrap();
        prop_assert_eq!(found.clone(), reference(&pages, offset, bytes));
        prop_assert_eq!(builder.shape(first_entry), match (found.len(), need) {
            (1, 0) => Shape::OnePage,
            (2, 0) => Shape::TwoPages,
            (_, 1) => Shape::List,
            (_, pages) => Shape::Chain { pages },
        });

        // Nothing else was written, and not a page more is used than needed.
        let written = match found.len() {
            1 | 2 => 0,
            pieces => pieces - 1 + need - 1,
        };
        let start = (first_page * 512 + first_entry) * 8;
        let all = buffer.bytes();
        prop_assert!(all[..start].iter().all(|byte| *byte == POISON));
        prop_assert!(all[start + written * 8..].iter().all(|byte| *byte == POISON));
        prop_assert_eq!(need, (written + if written == 0 { 0 } else { first_entry }).div_ceil(512));

        // With a page less it is refused, and nothing is written.
        if need > 0 {
            let short = memory.pages(first_page + need - 1, POISON);
            let list = PrpList { buffer: &short, first_page, first_entry };
            prop_assert_eq!(builder.build(&list), Err(PrpError::ListTooShort {
                need,
                first: first_page,
                pages: first_page + need - 1,
            }));
            prop_assert!(short.bytes().iter().all(|byte| *byte == POISON));
        }
    }

    #[test]
    fn no_arguments_make_the_builder_panic(
        pages in proptest::collection::vec(any::<u64>(), 0..4),
        offset in prop_oneof![any::<u64>(), 0..5000_u64],
        bytes in prop_oneof![any::<u64>(), 0..20000_u64],
        first_page in any::<usize>(),
        first_entry in any::<usize>(),
    ) {
        let memory = Memory::default();
        let buffer = memory.pages(1, 0);
        let pages: Vec<u64> = pages.iter().map(|page| page & !0xfff).collect();
        if let Ok(builder) = PrpBuilder::new(&pages, offset, bytes) {
            let _ = builder.shape(first_entry);
            let _ = builder.build(&PrpList { buffer: &buffer, first_page, first_entry });
        }
    }
}

#[test]
fn what_makes_no_data_pointer_is_refused() {
    let pages = addresses(3);
    let new = |offset, bytes| PrpBuilder::new(&pages, offset, bytes).map(|_| ());
    assert_eq!(new(0, 0), Err(PrpError::Empty));
    assert_eq!(new(4096, 4), Err(PrpError::Offset { offset: 4096 }));
    assert_eq!(new(2, 4), Err(PrpError::Offset { offset: 2 }));
    assert_eq!(new(0, 3 * 4096), Ok(()));
    let too_few = |offset, bytes| PrpError::TooFewPages {
        offset,
        bytes,
        pages: 3,
    };
    assert_eq!(new(4, 3 * 4096), Err(too_few(4, 3 * 4096)));
    assert_eq!(new(4, u64::MAX), Err(too_few(4, u64::MAX)));
    // Only pages in use count.
    let odd = [0x1000, 0x2000, 0x3004];
    assert!(PrpBuilder::new(&odd, 0, 8192).is_ok());
    assert_eq!(
        PrpBuilder::new(&odd, 4, 8192).map(|_| ()),
        Err(PrpError::NotAPage { address: 0x3004 })
    );
}

#[test]
fn a_list_has_to_be_in_pages_and_only_where_it_is_needed() {
    let memory = Memory::default();
    let pages = addresses(4);
    let mut buffer = memory.pages(1, 0);
    let beyond = PrpList {
        buffer: &buffer,
        first_page: 0,
        first_entry: 512,
    };
    let three = PrpBuilder::new(&pages, 0, 3 * 4096).unwrap();
    assert_eq!(
        three.build(&beyond),
        Err(PrpError::FirstEntry { entry: 512 })
    );
    // Two pages need none.
    assert_eq!(build(&pages, 8, 4096, &beyond).prp2(), pages[1]);
    let one = build(&pages, 8, 4088, &beyond);
    assert_eq!((one.prp1(), one.prp2()), (pages[0] + 8, 0));

    let real = buffer.pages[0];
    buffer.pages[0] = 0x1008;
    let list = PrpList {
        buffer: &buffer,
        first_page: 0,
        first_entry: 0,
    };
    assert_eq!(
        three.build(&list),
        Err(PrpError::NotAPage { address: 0x1008 })
    );
    buffer.pages[0] = real;
    assert_eq!(buffer.dma_address(1), None);
}

#[test]
fn a_list_that_fills_its_page_has_no_pointer_at_its_end() {
    let memory = Memory::default();
    let buffer = memory.pages(2, 0);
    let pages = addresses(514);
    let list = PrpList {
        buffer: &buffer,
        first_page: 0,
        first_entry: 0,
    };
    // 513 pages: PRP entry 1 and 512 of the list.
    build(&pages, 0, 513 * 4096, &list);
    assert_eq!(buffer.bytes()[4088..4096], pages[512].to_le_bytes());
    // One more: the last entry becomes a pointer.
    build(&pages, 0, 514 * 4096, &list);
    assert_eq!(buffer.bytes()[4088..4096], buffer.pages[1].to_le_bytes());
    assert_eq!(buffer.bytes()[4096..4104], pages[512].to_le_bytes());
    assert_eq!(buffer.bytes()[4104..4112], pages[513].to_le_bytes());
}

#[test]
fn every_list_page_but_the_last_holds_a_pointer() {
    let need = |entries: usize, first_entry| {
        let pages = addresses(entries + 1);
        PrpBuilder::new(&pages, 0, pages.len() as u64 * 4096)
            .unwrap()
            .list_pages(first_entry)
    };
    for (first_entry, entries, pages) in [
        (0, 1, 0), // the second page is no list
        (0, 2, 1),
        (0, 512, 1),
        (0, 513, 2),
        (0, 511 + 512, 2),
        (0, 511 + 513, 3),
        (0, 511 * 2 + 512, 3),
        (0, 511 * 2 + 513, 4),
        (511, 2, 2),
        (511, 512, 2),
        (511, 513, 3),
        (100, 412, 1),
        (100, 413, 2),
        (100, 411 + 512, 2),
        (100, 411 + 513, 3),
    ] {
        assert_eq!(
            need(entries, first_entry),
            pages,
            "{entries} from {first_entry}"
        );
    }
}
