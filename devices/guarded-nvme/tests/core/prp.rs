// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PRP entries and lists at their edges, and limits of I/O commands.

use address::{Gpa, Hpa};
use guarded_nvme::check::io::{Rules, Verdict, check};
use guarded_nvme::guest::{Access, GuestMemory, Translate};
use guarded_nvme::limits::Optional;
use guarded_nvme::prp::{Page, Payload};
use guarded_nvme::spec::{Entry, Status};
use guarded_nvme_testing::core::{limits, namespaces, ram};
use guarded_nvme_testing::{GuestRam, VecList};

/// Pages of RAM, all of them but those of `ram` that are left out.
const PAGES: u64 = 800;
const DATA: u64 = 0x10_0000;

fn payload(prp1: u64, prp2: u64, bytes: u32) -> Payload {
    let access = Access::Write;
    Payload {
        prp1,
        prp2,
        bytes,
        access,
    }
}

/// Guest addresses of a payload's pages.
fn walk(ram: &GuestRam, payload: Payload) -> Result<Vec<u64>, Status> {
    let mut pages = Vec::new();
    let mut sink = |page: Page| {
        assert_eq!(Some(page.hpa), ram.page(page.gpa, Access::Write));
        pages.push(page.gpa.0);
        Ok(())
    };
    let count = payload.walk(ram, &mut sink)?;
    assert_eq!(pages.len(), count as usize);
    Ok(pages)
}

/// Memory whose words from `list` on name the pages from [`DATA`] on.
fn with_list(list: u64, entries: u64) -> GuestRam {
    let ram = GuestRam::plain(PAGES);
    for entry in 0..entries {
        ram.put(Gpa(list + 8 * entry), DATA + 4096 * entry);
    }
    ram
}

#[test]
fn a_list_may_begin_anywhere_and_end_with_its_page() {
    let expected: Vec<u64> = [0x5000]
        .into_iter()
        .chain((0..4).map(|n| DATA + 4096 * n))
        .collect();
    for list in [0x2000, 0x2ff0 - 16, 0x2fe0, 0x2138] {
        let ram = with_list(list, 4);
        assert_eq!(
            walk(&ram, payload(0x5000, list, 5 * 4096)).unwrap(),
            expected
        );
    }
    let ram = with_list(0x2000, 4);
    let found = walk(&ram, payload(0x5004, 0x2000, 5 * 4096 - 4));
    assert_eq!(
        found.unwrap(),
        expected,
        "an offset that needs no page more"
    );
    let found = walk(&ram, payload(0x5ffc, 0x2000, 4 * 4096));
    assert_eq!(found.unwrap(), expected, "an offset that needs a page more");
}

#[test]
fn a_page_of_a_list_that_is_too_short_ends_with_a_pointer() {
    for entries in [0, 1, 2] {
        let list = 0x2ff8 - 8 * entries;
        let ram = with_list(list, entries);
        ram.put(Gpa(0x2ff8), 0x3000);
        for entry in entries..4 {
            ram.put(Gpa(0x3000 + 8 * (entry - entries)), DATA + 4096 * entry);
        }
        let pages = walk(&ram, payload(0x5000, list, 5 * 4096)).unwrap();
        let expected = [0x5000, DATA, DATA + 0x1000, DATA + 0x2000, DATA + 0x3000];
        assert_eq!(pages, expected, "{entries} entries before the pointer");
        ram.put(Gpa(0x2ff8), 0x3008);
        let found = walk(&ram, payload(0x5000, list, 5 * 4096));
        assert_eq!(
            found,
            Err(Status::INVALID_PRP_OFFSET),
            "a pointer with an offset"
        );
        ram.put(Gpa(0x2ff8), 0xfff_f000);
        let found = walk(&ram, payload(0x5000, list, 5 * 4096));
        assert_eq!(found, Err(Status::DATA_TRANSFER_ERROR), "a list outside");
    }
}

#[test]
fn a_list_that_points_to_itself_ends() {
    let ram = GuestRam::plain(PAGES);
    ram.put(Gpa(0x2ff8), 0x2000);
    for slot in 0..511 {
        ram.put(Gpa(0x2000 + 8 * slot), DATA);
    }
    ram.count_loads();
    let pages = walk(&ram, payload(0x5000, 0x2ff8, 3 << 20)).unwrap();
    assert_eq!(pages.len(), 768);
    let loads: u32 = ram.loads().values().sum();
    assert_eq!(loads, 767 + 2, "entries, and two pointers");
}

#[test]
fn low_bits_of_every_entry_are_checked() {
    let ram = with_list(0x2000, 8);
    for bit in 0..12 {
        let low = 1 << bit;
        let found = walk(&ram, payload(0x5000 + low, 0, 4));
        let expected = if low < 4 {
            Err(Status::INVALID_PRP_OFFSET)
        } else {
            Ok(vec![0x5000])
        };
        assert_eq!(found, expected, "PRP1, bit {bit}");
        let found = walk(&ram, payload(0x5000, 0x6000 + low, 8192));
        assert_eq!(found, Err(Status::INVALID_PRP_OFFSET), "PRP2, bit {bit}");
        let found = walk(&ram, payload(0x5000, 0x2000 + low, 4 * 4096));
        assert_eq!(found.is_err(), low < 8, "list, bit {bit}");
        ram.put(Gpa(0x2008), DATA + low);
        let found = walk(&ram, payload(0x5000, 0x2000, 4 * 4096));
        assert_eq!(found, Err(Status::INVALID_PRP_OFFSET), "entry, bit {bit}");
        ram.put(Gpa(0x2008), DATA);
    }
}

#[test]
fn addresses_outside_are_refused_wherever_they_are() {
    let outside = [PAGES * 4096, 1 << 40, 1 << 52, 1 << 63, u64::MAX - 4095];
    let ram = with_list(0x2000, 8);
    let refused = Err(Status::DATA_TRANSFER_ERROR);
    for address in outside {
        assert_eq!(walk(&ram, payload(address, 0, 4)), refused);
        assert_eq!(walk(&ram, payload(0x5000, address, 8192)), refused);
        assert_eq!(walk(&ram, payload(0x5000, address, 3 * 4096)), refused);
        assert_eq!(
            walk(&ram, payload(0x5000, address + 0xff8, 3 * 4096)),
            refused
        );
        ram.put(Gpa(0x2010), address);
        assert_eq!(walk(&ram, payload(0x5000, 0x2000, 4 * 4096)), refused);
        ram.put(Gpa(0x2010), DATA);
    }
}

#[test]
fn memory_that_a_device_may_not_write_can_be_written_from() {
    let ram = ram(32);
    assert!(!ram.write(Gpa(0xb000), &[0]), "page 11 is read-only");
    let mut transfer = payload(0xb000, 0xc000, 8192);
    assert_eq!(walk(&ram, transfer), Err(Status::DATA_TRANSFER_ERROR));
    transfer.access = Access::Read;
    assert!(transfer.walk(&ram, &mut |_: Page| Ok(())).is_ok());
}

/// A Read of namespace `nsid`, with a list of the guest's at 0x2000.
fn read(nsid: u64, blocks: u64) -> Entry {
    Entry::new([2 | nsid << 32, 0, 0, 0x5000, 0x2000, 0, blocks - 1, 0])
}

#[test]
fn transfers_have_exactly_the_bytes_of_their_blocks_up_to_the_limit() {
    let ram = with_list(0x2000, 512);
    let namespaces = namespaces();
    for mdts in 0..=9 {
        let limits = limits(mdts);
        let rules = Rules {
            limits: &limits,
            namespaces: &namespaces,
        };
        for (nsid, shift) in [(1, 9), (2, 12), (3, 16)] {
            let most = 1_u64 << (12 + mdts) >> shift;
            let mut list = VecList::new(Hpa(0x7000_0000), 512);
            let over = check(&read(nsid, most + 1), &rules, &ram, &mut list);
            assert_eq!(
                over,
                Verdict::Refuse(Status::INVALID_FIELD),
                "{mdts} {shift}"
            );
            if most == 0 {
                continue;
            }
            let verdict = check(&read(nsid, most), &rules, &ram, &mut list);
            assert!(matches!(verdict, Verdict::Forward(_)), "{mdts} {shift}");
            let pages = 1 << mdts;
            // Two pages need no list.
            let expected = if pages > 2 { pages - 1 } else { 0 };
            assert_eq!(list.entries().len(), expected);
        }
    }
}

#[test]
fn a_list_that_is_too_small_is_not_overrun() {
    let (limits, namespaces) = (limits(9), namespaces());
    let rules = Rules {
        limits: &limits,
        namespaces: &namespaces,
    };
    let ram = with_list(0x2000, 16);
    let mut list = VecList::new(Hpa(0x7000_0000), 8);
    let verdict = check(&read(2, 9), &rules, &ram, &mut list);
    assert!(matches!(verdict, Verdict::Forward(_)));
    let verdict = check(&read(2, 10), &rules, &ram, &mut list);
    assert_eq!(verdict, Verdict::Refuse(Status::INVALID_FIELD));
}

#[test]
fn optional_commands_need_to_be_offered_and_all_need_a_namespace() {
    let ram = with_list(0x2000, 16);
    let namespaces = namespaces();
    let (mut none, all) = (limits(9), limits(9));
    none.optional = Optional::default();
    for opcode in 0..=u8::MAX {
        let verdict = |limits, nsid: u32| {
            let rules = Rules {
                limits,
                namespaces: &namespaces,
            };
            let words = [
                u64::from(opcode) | u64::from(nsid) << 32,
                0,
                0,
                0x5000,
                0,
                0,
                0,
                0,
            ];
            let mut list = VecList::new(Hpa(0x7000_0000), 8);
            check(&Entry::new(words), &rules, &ram, &mut list)
        };
        let refused = Verdict::Refuse;
        let is_always = opcode <= 2;
        let is_optional = [5, 8, 9, 0xc].contains(&opcode);
        let is_refused = verdict(&none, 1) == refused(Status::INVALID_OPCODE);
        assert_eq!(is_refused, !is_always, "{opcode:#x}");
        let is_refused = verdict(&all, 1) == refused(Status::INVALID_OPCODE);
        assert_eq!(is_refused, !is_always && !is_optional, "{opcode:#x}");
        for nsid in [0, 4, u32::MAX] {
            let expected = match verdict(&all, 1) {
                Verdict::Refuse(status) => refused(status),
                _ if opcode == 0 && nsid == u32::MAX => verdict(&all, nsid),
                _ => refused(Status::INVALID_NAMESPACE),
            };
            assert_eq!(verdict(&all, nsid), expected, "{opcode:#x} of {nsid}");
        }
        let is_forwarded = matches!(verdict(&all, u32::MAX), Verdict::Forward(_));
        assert_eq!(is_forwarded, opcode == 0);
    }
}
