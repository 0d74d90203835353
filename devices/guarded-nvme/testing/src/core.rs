// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The core on any command and any memory, which the guest changes while it is read.

use std::collections::BTreeSet;

use address::{Gpa, Hpa};
use guarded_nvme::check::io::{self, Rules, Verdict};
use guarded_nvme::guest::{Access, Translate};
use guarded_nvme::limits::{Limits, Optional};
use guarded_nvme::namespaces::Namespaces;
use guarded_nvme::spec::{Cdw, DeviceCommand, Entry, PAGE, Status};

use crate::{GuestRam, Input, Physical, VecList};

const PAGES: u64 = 48;
const LIST: Hpa = Hpa(0x77_0000_0000);
/// Block sizes of namespaces 1 to 3.
const SHIFTS: [u8; 3] = [9, 12, 16];

/// What became of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Forwarded with one page or none.
    pub short: u32,
    /// Forwarded with two pages.
    pub pairs: u32,
    /// Forwarded with a list.
    pub lists: u32,
    /// Forwarded with a list that the guest had on several pages.
    pub chains: u32,
    /// Through a page of the monitor's.
    pub bounced: u32,
    /// Refused for an offset.
    pub offsets: u32,
    /// Refused for an address.
    pub addresses: u32,
    /// Refused for something else.
    pub refused: u32,
}

impl Seen {
    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        self.short += other.short;
        self.pairs += other.pairs;
        self.lists += other.lists;
        self.chains += other.chains;
        self.bounced += other.bounced;
        self.offsets += other.offsets;
        self.addresses += other.addresses;
        self.refused += other.refused;
    }

    /// Whether everything was seen.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let all = [
            self.short,
            self.pairs,
            self.lists,
            self.chains,
            self.bounced,
            self.offsets,
            self.addresses,
            self.refused,
        ];
        all.iter().all(|count| *count > 0)
    }
}

/// Limits of a controller that offers everything.
#[must_use]
pub fn limits(mdts: u8) -> Limits {
    Limits {
        mdts,
        depth: 256,
        queues: 8,
        vectors: 9,
        events: 4,
        optional: Optional::ALL,
        notices: 3 << 8,
        extended_logs: true,
        keep_alive: false,
    }
}

/// Namespaces 1 to 3, with blocks of 512 bytes, 4 KiB and 64 KiB.
#[must_use]
pub fn namespaces() -> Namespaces {
    let mut all = Namespaces::default();
    for (nsid, shift) in (1..).zip(SHIFTS) {
        let mut structure = vec![0; 4096];
        structure[0] = 1;
        structure[130] = shift;
        all.add(nsid, &structure, 0);
    }
    all
}

/// A machine whose guest has holes in its memory, and pages that a device may not write.
#[must_use]
pub fn ram(pages: u64) -> GuestRam {
    GuestRam::new(Physical::default(), pages, |page| match page % 16 {
        7 => None,
        11 => Some(false),
        _ => Some(true),
    })
}

/// Checks commands made of `bytes`.
///
/// # Panics
///
/// If a rule is broken.
#[must_use]
pub fn run(bytes: &[u8]) -> Seen {
    let mut input = Input::new(bytes);
    let mut seen = Seen::default();
    let limits = limits(input.byte() % 10);
    let namespaces = namespaces();
    let rules = Rules {
        limits: &limits,
        namespaces: &namespaces,
    };
    let ram = ram(PAGES);
    let mut rounds = 0;
    while !input.is_empty() && rounds < 16 {
        rounds += 1;
        let entry = entry(&mut input);
        if rounds == 1 || input.byte() < 32 {
            fill(&mut input, &ram);
        }
        one(&entry, &rules, &ram, &mut seen);
    }
    seen
}

/// A page address, most often a good one.
fn page(input: &mut Input<'_>) -> u64 {
    let number = u64::from(input.byte());
    match number {
        0..200 => number % PAGES * PAGE,
        200..216 => (PAGES + number) * PAGE,
        216 => u64::MAX - 4095,
        217 => 1 << 52,
        218 => LIST.0,
        219..230 => number % PAGES * PAGE + 8,
        230..240 => number % PAGES * PAGE + 1,
        _ => input.word64(),
    }
}

fn entry(input: &mut Input<'_>) -> Entry {
    let opcode = match input.byte() {
        0..128 => input.choose(&[1, 2, 5]),
        128..224 => input.choose(&[0, 8, 9, 0xc]),
        _ => input.byte(),
    };
    let flags = if input.byte() < 240 { 0 } else { input.byte() };
    let nsid = match input.byte() {
        0..240 => u32::from(input.byte() % 5),
        240..250 => u32::MAX,
        _ => input.word32(),
    };
    let first = page(input).wrapping_add(input.choose(&[0, 0, 4, 512, 4092, 2]));
    let second = match input.byte() {
        0..100 => page(input),
        100..200 => u64::from(input.below(48)) * PAGE + u64::from(input.below(512)) * 8,
        200..230 => u64::from(input.below(48)) * PAGE + 4088,
        _ => input.word64(),
    };
    let blocks = input.choose(&[0, 0, 1, 3, 7, 8, 15, 31, 255]);
    let blocks = if input.byte() < 240 {
        blocks
    } else {
        u64::from(input.word16())
    };
    let rest = [input.word64(), input.word64(), input.word64()];
    let words = [
        u64::from(opcode) | u64::from(flags) << 8 | 0xabcd << 16 | u64::from(nsid) << 32,
        rest[0],
        rest[1],
        first,
        second,
        rest[2],
        blocks | u64::from(input.word16()) << 16 | u64::from(input.word32()) << 32,
        rest[1],
    ];
    Entry::new(words)
}

/// Fills the guest's memory with page addresses, so that lists lead somewhere.
fn fill(input: &mut Input<'_>, ram: &GuestRam) {
    let (seed, step) = (u64::from(input.byte()), u64::from(input.byte()) | 1);
    let is_clean = input.byte() < 200;
    let odd = page(input);
    for number in 0..PAGES {
        for slot in 0..512 {
            let page = (seed + number * 3 + slot * step) % PAGES;
            let good = match page % 16 {
                7 | 11 if is_clean => 0,
                _ => page,
            };
            ram.put(Gpa(number * PAGE + slot * 8), good * PAGE);
        }
    }
    let at = u64::from(input.below(512)) * 8;
    ram.put(Gpa(u64::from(input.below(48)) * PAGE + at), odd);
}

fn one(entry: &Entry, rules: &Rules<'_>, ram: &GuestRam, seen: &mut Seen) {
    let expected = expected_transfer(entry, rules);
    let pages = expected.map(|transfer| oracle(entry, transfer, ram));
    // What is read once is changed at once.
    ram.play(Box::new(|ram, gpa| ram.put(gpa, 0x66_6000)));
    let mut list = VecList::new(LIST, 512);
    let verdict = io::check(entry, rules, ram, &mut list);
    ram.play(Box::new(|_, _| {}));
    match verdict {
        Verdict::Refuse(status) => refused(status, pages.as_ref(), seen),
        Verdict::Bounce(bounce) => {
            check_command(&bounce.command, entry);
            assert_eq!(entry.opcode(), 9);
            let ranges = (entry.cdw(Cdw::D10) & 0xff) + 1;
            assert_eq!(bounce.payload.bytes, ranges * 16);
            assert_eq!(bounce.payload.access, Access::Read);
            assert_eq!(
                [bounce.command.words()[3], bounce.command.words()[4]],
                [0, 0]
            );
            seen.bounced += 1;
        }
        Verdict::Forward(command) => {
            check_command(&command, entry);
            match pages {
                None => {
                    let words = command.words();
                    assert_eq!([words[3], words[4]], [0, 0], "{entry:?} has no data");
                    seen.short += 1;
                }
                Some(pages) => check_pages(&command, entry, &pages, &list.entries(), seen),
            }
        }
    }
}

fn refused(status: Status, pages: Option<&Oracle>, seen: &mut Seen) {
    assert!(!status.is_success() && status.is_final(), "{status:?}");
    match status {
        Status::INVALID_PRP_OFFSET => seen.offsets += 1,
        Status::DATA_TRANSFER_ERROR => seen.addresses += 1,
        _ => seen.refused += 1,
    }
    if let Some(Oracle::Known(Err(expected), _)) = pages {
        let is_earlier = !matches!(
            status,
            Status::INVALID_PRP_OFFSET | Status::DATA_TRANSFER_ERROR
        );
        assert!(
            is_earlier || status == *expected,
            "{status:?}, not {expected:?}"
        );
    }
}

/// What a command transfers.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    bytes: u64,
    access: Access,
}

/// Bytes and direction by the command's own rule; `None` without data.
fn expected_transfer(entry: &Entry, rules: &Rules<'_>) -> Option<Transfer> {
    let shift = rules.namespaces.get(entry.nsid())?.block_shift;
    let access = match entry.opcode() {
        1 | 5 => Access::Read,
        2 => Access::Write,
        _ => return None,
    };
    let bytes = (u64::from(entry.cdw(Cdw::D12) & 0xffff) + 1) << shift;
    Some(Transfer { bytes, access })
}

/// What the pages of a command are, by a second reading of the rules.
enum Oracle {
    /// The pages, or the first fault; and on how many pages the guest's list is.
    Known(Result<Vec<Hpa>, Status>, usize),
    /// The list is read twice in places, and has changed by then.
    Changing,
}

fn oracle(entry: &Entry, transfer: Transfer, ram: &GuestRam) -> Oracle {
    let Transfer { bytes, access } = transfer;
    let (first, second) = (entry.prp1(), entry.prp2());
    let count = (first % PAGE + bytes).div_ceil(PAGE);
    if count > 513 {
        return Oracle::Known(Err(Status::INVALID_FIELD), 0);
    }
    if first % 4 != 0 {
        return Oracle::Known(Err(Status::INVALID_PRP_OFFSET), 0);
    }
    let mut named = vec![Ok(first - first % PAGE)];
    let mut places = BTreeSet::new();
    if count == 2 {
        named.push(Ok(second));
    }
    let mut at = second;
    if count > 2 && at % 8 != 0 {
        named.push(Err(Status::INVALID_PRP_OFFSET));
    }
    while count > 2 && (named.len() as u64) < count && named.iter().all(Result::is_ok) {
        if !places.insert(at) {
            return Oracle::Changing;
        }
        let Some(value) = word(ram, at) else {
            named.push(Err(Status::DATA_TRANSFER_ERROR));
            break;
        };
        let is_last_slot = at % PAGE == PAGE - 8;
        if is_last_slot && (named.len() as u64) + 1 < count {
            if value % PAGE != 0 {
                named.push(Err(Status::INVALID_PRP_OFFSET));
            }
            at = value;
        } else {
            named.push(Ok(value));
            at = at.wrapping_add(8);
        }
    }
    let lists: BTreeSet<u64> = places.iter().map(|at| at / PAGE).collect();
    let translate = |address: Result<u64, Status>| {
        let address = address?;
        if address % PAGE != 0 {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        ram.page(Gpa(address), access)
            .ok_or(Status::DATA_TRANSFER_ERROR)
    };
    Oracle::Known(named.into_iter().map(translate).collect(), lists.len())
}

fn word(ram: &GuestRam, at: u64) -> Option<u64> {
    ram.hpa(Gpa(at)).map(|_| ram.get(Gpa(at)))
}

/// What a command may hold, whatever the guest's had.
fn check_command(command: &DeviceCommand, entry: &Entry) {
    let opcode = entry.opcode();
    let words = command.words();
    assert!([0, 1, 2, 5, 8, 9, 0xc].contains(&opcode), "{opcode:#x}");
    assert_eq!(words[0] & 0xffff_ffff, opcode.into(), "flags and CID are 0");
    assert_eq!(words[0] >> 32, entry.nsid().into());
    assert_eq!([words[1], words[2], words[7]], [0; 3]);
    let kept = match opcode {
        0 => [0, 0, 0, 0],
        1 | 2 => [!0, !0, 0xc000_ffff, 0xff],
        9 => [0xff, 7, 0, 0],
        8 => [!0, !0, 0xc200_ffff, 0],
        _ => [!0, !0, 0xc000_ffff, 0],
    };
    let numbers = [Cdw::D10, Cdw::D11, Cdw::D12, Cdw::D13];
    for (number, kept) in numbers.into_iter().zip(kept) {
        let expected = entry.cdw(number) & kept;
        assert_eq!(command.entry().cdw(number), expected, "{number:?}");
    }
}

fn check_pages(
    command: &DeviceCommand,
    entry: &Entry,
    oracle: &Oracle,
    list: &[Hpa],
    seen: &mut Seen,
) {
    let words = command.words();
    let Oracle::Known(pages, lists) = oracle else {
        assert_eq!(words[4], LIST.0);
        return;
    };
    let pages = pages.as_ref().expect("a fault was forwarded");
    // The offset within the first page is the payload's; the device takes it from the monitor's page.
    assert_eq!(words[3], pages[0].0 + entry.prp1() % PAGE);
    match pages.len() {
        1 => {
            assert_eq!(words[4], 0);
            seen.short += 1;
        }
        2 => {
            assert_eq!(words[4], pages[1].0);
            seen.pairs += 1;
        }
        _ => {
            assert_eq!(words[4], LIST.0);
            assert_eq!(list, &pages[1..]);
            seen.lists += 1;
            seen.chains += u32::from(*lists > 1);
        }
    }
}
