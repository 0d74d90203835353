// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Valid, broken and hidden lists.

extern crate std;

use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::read::Words;
use crate::regs::{CAP_EXPRESS, CAP_MSI, CAP_PM};

/// Config space with these dwords, and a list.
fn config(dwords: &[(u16, u32)]) -> Vec<u8> {
    let mut config = vec![0; 4096];
    config[6] = 0x10;
    for &(offset, value) in dwords {
        config[usize::from(offset)..][..4].copy_from_slice(&value.to_le_bytes());
    }
    config
}

/// More than any list has: a walk that does not end fails a test, and does not fill the memory.
const TOO_MANY: usize = 1000;

fn standard(dwords: &[(u16, u32)]) -> Vec<(u16, u16)> {
    let config = config(dwords);
    let list = capabilities(&config[..]).take(TOO_MANY);
    list.map(|Ok(found)| (found.id, found.offset)).collect()
}

fn extended(dwords: &[(u16, u32)]) -> Vec<(u16, u8, u16)> {
    let config = config(dwords);
    let list = extended_capabilities(&config[..]).take(TOO_MANY);
    list.map(|Ok(found)| (found.id, found.version, found.offset))
        .collect()
}

#[test]
fn lists_are_followed_in_their_order() {
    let list = [(0x34, 0x50), (0x50, 0x4005), (0x40, 0x0010)];
    assert_eq!(standard(&list), [(5, 0x50), (0x10, 0x40)]);
    let list = [(0x100, 0x2001_0001), (0x200, 0x0002_0003)];
    assert_eq!(extended(&list), [(1, 1, 0x100), (3, 2, 0x200)]);
    assert_eq!(
        extended(&[(0x100, 0xffc1_0001), (0xffc, 0x0001_0003)]),
        [(1, 1, 0x100), (3, 1, 0xffc)],
        "the last dword"
    );
}

#[test]
fn the_low_bits_of_pointers_do_not_count() {
    let list = [(0x34, 0x53), (0x50, 0x4205), (0x40, 0x0010)];
    assert_eq!(standard(&list), [(5, 0x50), (0x10, 0x40)]);
    let list = [(0x100, 0x2031_0001), (0x200, 0x0002_0003)];
    assert_eq!(extended(&list), [(1, 1, 0x100), (3, 2, 0x200)]);
}

#[test]
fn broken_lists_end() {
    assert_eq!(standard(&[]), []);
    assert_eq!(standard(&[(0x34, 0x10)]), [], "into the header");
    assert_eq!(
        standard(&[(0x34, 0x40), (0x40, 0x4005)]),
        [(5, 0x40)],
        "to itself"
    );
    let ring = [(0x34, 0x40), (0x40, 0x4805), (0x48, 0x4001)];
    assert_eq!(standard(&ring), [(5, 0x40), (1, 0x48)]);
    assert_eq!(standard(&[(0x34, 0x40), (0x40, 0xffff)]), [], "no response");
    assert_eq!(
        standard(&[(0x34, 0x40), (0x40, 0x50ff), (0x50, 0x0005)]),
        [],
        "no response, with a pointer"
    );
    assert_eq!(
        standard(&[(0x34, 0x40), (0x40, 0x5000), (0x50, 0x0005)]),
        [(0, 0x40), (5, 0x50)],
        "one without registers"
    );
    assert_eq!(extended(&[(0x100, u32::MAX)]), []);
    assert_eq!(
        extended(&[(0x100, 0x0401_0001)]),
        [(1, 1, 0x100)],
        "into the header"
    );
    assert_eq!(
        extended(&[(0x100, 0x1401_0000), (0x140, 0x0001_0003)]),
        [(3, 1, 0x140)],
        "a place without a capability"
    );
    let ring = [(0x100, 0x1401_0000), (0x140, 0x1001_0000)];
    assert_eq!(extended(&ring), [], "a ring of places");
}

#[test]
fn a_list_that_is_not_there_is_empty() {
    let mut silent = config(&[(0x34, 0x40), (0x40, 5)]);
    silent[6] = 0;
    assert_eq!(capabilities(&silent[..]).count(), 0);
    assert_eq!(capabilities(&[0_u8; 0][..]).count(), 0);
    assert_eq!(extended_capabilities(&silent[..256]).count(), 0);
    assert_eq!(extended_capabilities(&[0_u8; 0][..]).count(), 0);
    let hidden = config(&[(0x34, 0x40), (0x40, 5)]);
    assert_eq!(capabilities(&hidden[..64]).count(), 0);
    assert!(hides_capabilities(&hidden[..64]));
    assert!(!hides_capabilities(&hidden[..256]));
    assert!(!hides_capabilities(&silent[..64]));
}

#[test]
fn no_list_is_longer_than_there_is_room() {
    let mut config = config(&[(0x34, 0x40)]);
    for at in (0x40_u8..0xfc).step_by(4) {
        config[usize::from(at)..][..2].copy_from_slice(&[9, at + 4]);
    }
    config[0xfc..0xfe].copy_from_slice(&[9, 0x40]);
    for at in (0x100_u32..0x1000).step_by(4) {
        let next = if at == 0xffc { 0x100 } else { at + 4 };
        let header = next << 20 | 0x1_000b;
        config[at as usize..][..4].copy_from_slice(&header.to_le_bytes());
    }
    let all = capabilities(&config[..]).take(TOO_MANY);
    assert_eq!(all.count(), MAX_CAPABILITIES);
    let all = extended_capabilities(&config[..]).take(TOO_MANY);
    assert_eq!(all.count(), MAX_EXTENDED_CAPABILITIES);
    assert_eq!((MAX_CAPABILITIES, MAX_EXTENDED_CAPABILITIES), (48, 960));
}

#[test]
fn a_search_reads_no_more_than_it_needs() {
    let config = config(&[(0x34, 0x50), (0x50, 0x4005), (0x40, 0x0010)]);
    let reads = RefCell::new(Vec::new());
    let search = |id| {
        reads.borrow_mut().clear();
        let found = find_capability(
            Words(|at| {
                reads.borrow_mut().push(at);
                crate::word(&config, at).ok_or(())
            }),
            id,
        );
        (found, reads.borrow().clone())
    };
    assert_eq!(search(CAP_MSI), (Ok(Some(0x50)), vec![6, 0x34, 0x50]));
    let all = vec![6, 0x34, 0x50, 0x40];
    assert_eq!(search(CAP_EXPRESS), (Ok(Some(0x40)), all.clone()));
    assert_eq!(search(CAP_PM), (Ok(None), all));
}

#[test]
fn a_failure_is_the_end() {
    let config = config(&[(0x34, 0x50), (0x50, 0x4005), (0x40, 0x0010)]);
    for broken in [6, 0x34, 0x50, 0x40] {
        let read = |at| match crate::word(&config, at) {
            Some(word) if at != broken => Ok(word),
            _ => Err(at),
        };
        let mut list = capabilities(Words(read));
        assert_eq!(list.find_map(Result::err), Some(broken));
        assert_eq!(list.next(), None);
        assert_eq!(find_capability(Words(read), CAP_PM), Err(broken));
    }
    let read = |at: u16| if at == 0x102 { Err(at) } else { Ok(1) };
    assert_eq!(find_extended_capability(Words(read), 2), Err(0x102));
}

#[test]
fn headers_are_read_back() {
    let capability = Capability {
        id: 0x23,
        version: 2,
        offset: 0x100,
    };
    let header = capability.extended_header(0x2a0);
    assert_eq!(header, 0x2a02_0023);
    let second = Capability {
        offset: 0x2a0,
        ..capability
    };
    let config = config(&[(0x100, header), (0x2a0, second.extended_header(0))]);
    let mut found = extended_capabilities(&config[..]).map(|Ok(found)| found);
    assert_eq!(found.next(), Some(capability));
    assert_eq!(found.next(), Some(second));
    assert_eq!(capability.standard_header(0x50), 0x5023);
}
