// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data between a guest's pages and memory of the monitor's.

use address::Gpa;
use guarded_nvme::bounce::{Target, fetch, load_page, store_page};
use guarded_nvme::guest::Access;
use guarded_nvme::prp::Payload;
use guarded_nvme::spec::Status;
use guarded_nvme_testing::{GuestRam, Physical};

/// Three pages of the guest's, in no order: of the entries, and of the list at 0x2000.
const PAGES: [u64; 3] = [0x9000, 0x5000, 0x7000];

fn guest() -> GuestRam {
    let ram = GuestRam::plain(64);
    ram.put_all(Gpa(0x2000), &PAGES[1..]);
    ram
}

fn payload(offset: u64, bytes: u32, access: Access) -> Payload {
    let pages = (offset + u64::from(bytes)).div_ceil(4096);
    let prp2 = if pages > 2 { 0x2000 } else { PAGES[1] };
    Payload {
        prp1: PAGES[0] + offset,
        prp2,
        bytes,
        access,
    }
}

/// Byte `at` of a pattern without a short period.
fn pattern(at: usize) -> u8 {
    u8::try_from(at * 7 % 251).unwrap()
}

/// Where byte `at` of a payload is.
fn place(offset: u64, at: u64) -> Gpa {
    let at = offset + at;
    Gpa(PAGES[usize::try_from(at / 4096).unwrap()] + at % 4096)
}

#[test]
fn what_is_fetched_is_the_payload_and_zeros() {
    for (offset, bytes) in [
        (0, 4096),
        (4, 4096),
        (4092, 16),
        (512, 512),
        (4092, 4096),
        (0, 8),
    ] {
        let ram = guest();
        for page in PAGES {
            ram.put_all(Gpa(page), &[u64::MAX; 512]);
        }
        for at in 0..u64::from(bytes) {
            let value = [pattern(usize::try_from(at).unwrap())];
            assert!(guarded_nvme::guest::GuestMemory::write(
                &ram,
                place(offset, at),
                &value
            ));
        }
        let data = fetch(&payload(offset, bytes, Access::Read), &ram).unwrap();
        for (at, byte) in data.iter().enumerate() {
            let expected = if at < bytes as usize { pattern(at) } else { 0 };
            assert_eq!(*byte, expected, "byte {at} of {bytes} at {offset}");
        }
    }
    let found = fetch(&payload(0, 4100, Access::Read), &guest());
    assert_eq!(found, Err(Status::INVALID_FIELD), "more than a page");
}

#[test]
fn what_is_written_is_the_payload_alone() {
    for (offset, bytes) in [
        (0, 4096),
        (4, 4096),
        (4092, 12),
        (512, 512),
        (2048, 8192),
        (0, 12288),
    ] {
        let ram = guest();
        for page in PAGES {
            ram.put_all(Gpa(page), &[u64::MAX; 512]);
        }
        let target = Target::new(payload(offset, bytes, Access::Write), &ram).unwrap();
        assert_eq!(target.bytes(), bytes as usize);
        for start in (0..12288).step_by(4096) {
            let data: Vec<u8> = (start..start + 4096).map(pattern).collect();
            assert!(target.write(&ram, start, &data));
        }
        for at in 0..12288 - offset {
            let byte = ram.bytes(place(offset, at), 1)[0];
            let number = usize::try_from(at).unwrap();
            let expected = if at < bytes.into() {
                pattern(number)
            } else {
                0xff
            };
            assert_eq!(byte, expected, "byte {at} of {bytes} at {offset}");
        }
        if offset > 0 {
            assert_eq!(
                ram.bytes(Gpa(PAGES[0] + offset - 1), 1),
                [0xff],
                "before it"
            );
        }
    }
}

#[test]
fn the_pages_are_those_that_were_checked() {
    let ram = guest();
    let target = Target::new(payload(0, 12288, Access::Write), &ram).unwrap();
    ram.put_all(Gpa(0x2000), &[0x1000, 0x1000]);
    assert!(target.write(&ram, 4096, &[1; 4096]));
    assert_eq!(ram.bytes(Gpa(PAGES[1]), 1), [1]);
    assert_eq!(ram.bytes(Gpa(0x1000), 1), [0]);
    let most = payload(4, (128 << 10) + 4096, Access::Write);
    ram.put_all(Gpa(0x2000), &[0x1000; 64]);
    let found = Target::new(most, &ram).map(|_| ());
    assert_eq!(found, Err(Status::INVALID_FIELD), "more than 33 pages");
}

#[test]
fn a_page_of_a_block_is_stored_and_loaded_whole() {
    let physical = Physical::default();
    let block = physical.block(2, false).unwrap();
    let mut data = [0; 4096];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = pattern(at);
    }
    store_page(&block, 1, &data);
    assert_eq!(load_page(&block, 1), data);
    assert_eq!(load_page(&block, 0), [0; 4096]);
}
