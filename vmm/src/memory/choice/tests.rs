// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The choice from pools of every shape, compared with brute force.

use std::collections::BTreeSet;

use address::BusAddr;
use host::BusRange;
use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;
use crate::boot::kernel::Demand;

const PAGE: u64 = 2 << 20;
/// Pieces that are safe.
const PIECES: usize = 127;
const PER_SECTION: u64 = SECTION / PAGE;
const LIMIT: u64 = LIMIT_4G / PAGE;

/// A kernel of this size, which can be anywhere, and too large for RAM that has no such piece.
const fn kernel(len: u64) -> BootRequirements {
    BootRequirements {
        kernel: Demand {
            len,
            alignment: PAGE,
            lowest: Gpa(0),
            below: Gpa(u64::MAX),
            reason: "",
            initramfs_below: Gpa(u64::MAX),
            pieces: PIECES,
        },
        initramfs: None,
        size: u64::MAX,
    }
}

/// Anywhere, even outside of RAM.
const ANYWHERE: BootRequirements = BootRequirements {
    size: 0,
    ..kernel(0)
};

/// A block of at least 8 pages.
const BLOCK: BootRequirements = kernel(8 * PAGE);

fn block(ranges: &[Range<Gpa>]) -> bool {
    ranges
        .iter()
        .any(|range| range.end - range.start >= 8 * PAGE)
}

fn hpas(frames: &[u64]) -> Vec<Hpa> {
    frames.iter().map(|frame| Hpa(frame * PAGE)).collect()
}

fn wish(pages: usize) -> PageRequirements<'static> {
    PageRequirements {
        pages,
        dma: &DmaMap::Identity,
        below_4g: 0,
        boot: ANYWHERE,
    }
}

fn cost(pages: &[Hpa], wish: &PageRequirements<'_>) -> Cost {
    let ranges = ranges(pages, PAGE);
    Cost::of(&Overhead::of(&ranges), &ranges, wish)
}

fn of_choice(pages: &[Hpa], wish: &PageRequirements<'_>) -> (Choice, Cost) {
    let choice = choose(pages, PAGE, wish);
    let kept: Vec<Hpa> = choice.kept.iter().map(|number| pages[*number]).collect();
    let cost = cost(&kept, wish);
    (choice, cost)
}

#[test]
fn singles_go_back_and_blocks_stay() {
    // Four singles in four sections, then a block in one.
    let singles = (1..=4).map(|section| section * PER_SECTION);
    let pages: Vec<u64> = singles.chain(500..508).collect();
    let (choice, _) = of_choice(&hpas(&pages), &wish(8));
    assert_eq!(choice.kept, (4..12).collect::<Vec<_>>());
    assert_eq!((choice.naive.extents, choice.naive.sections), (5, 5));
    assert_eq!((choice.chosen.extents, choice.chosen.sections), (1, 1));
}

#[test]
fn a_run_is_cut_where_a_section_begins() {
    let run: Vec<u64> = (5 * PER_SECTION - 3..6 * PER_SECTION).collect();
    let (choice, _) = of_choice(&hpas(&run), &wish(64));
    assert_eq!(choice.chosen.sections, 1);
    assert_eq!(choice.kept, (3..67).collect::<Vec<_>>());
}

#[test]
fn small_runs_of_a_full_section_go_back() {
    // Two runs of four and two singles in a section, a run of five in each of two others.
    let section = 10 * PER_SECTION;
    let full = [0, 1, 2, 3, 5, 6, 7, 8, 10, 12].map(|place| section + place);
    let others = [20, 30].map(|other| other * PER_SECTION..other * PER_SECTION + 5);
    let pages: Vec<u64> = full
        .into_iter()
        .chain(others.into_iter().flatten())
        .collect();
    let (choice, _) = of_choice(&hpas(&pages), &wish(8));
    assert_eq!(choice.kept, (0..8).collect::<Vec<_>>());
    let backwards: Vec<u64> = pages.into_iter().rev().collect();
    let (choice, _) = of_choice(&hpas(&backwards), &wish(8));
    assert_eq!((choice.chosen.extents, choice.chosen.sections), (2, 1));
}

#[test]
fn low_memorys_section_costs_nothing() {
    // Two pages beside low memory, or two neighbours in a section of their own.
    let pages = hpas(&[1000, 1001, 3, 9]);
    assert_eq!(of_choice(&pages, &wish(2)).0.kept, [2, 3]);
}

#[test]
fn the_kernel_comes_before_the_price() {
    // A block over a border costs two sections; the section of singles is fuller.
    let singles = (0..32).map(|index| 10 * PER_SECTION + 2 * index);
    let block_at = 20 * PER_SECTION - 4..20 * PER_SECTION + 4;
    let pages: Vec<u64> = singles.chain(block_at).collect();
    let pages = hpas(&pages);
    let wish = PageRequirements {
        boot: BLOCK,
        ..wish(32)
    };
    let (choice, cost) = of_choice(&pages, &wish);
    assert!(!cost.unplaced);
    assert!((32..40).all(|number| choice.kept.contains(&number)));
}

#[test]
fn devices_of_32_bits_get_low_memory() {
    let pages: Vec<u64> = (LIMIT..LIMIT + 40).chain([700, 800, 900]).collect();
    let pages = hpas(&pages);
    let kept = |below_4g| {
        let wish = PageRequirements {
            below_4g,
            ..wish(40)
        };
        of_choice(&pages, &wish).0.chosen.below_4g / PAGE
    };
    assert_eq!([0, 1, PAGE, PAGE + 1, 64 * PAGE].map(kept), [0, 1, 1, 2, 3]);
}

#[test]
fn no_more_pieces_than_are_safe() {
    // 200 singles in few sections, or pairs in many.
    let singles = (0..200).map(|index| 4000 + 2 * index);
    let pairs = (0..100).flat_map(|index| [10_000 + 80 * index, 10_001 + 80 * index]);
    let pages: Vec<u64> = singles.chain(pairs).collect();
    let (choice, cost) = of_choice(&hpas(&pages), &wish(200));
    assert_eq!(cost.unsafe_extents, 0);
    assert!(choice.chosen.sections > choice.naive.sections);
}

#[test]
fn safety_comes_before_memory_below_4g() {
    // 120 pairs above 4 GiB are all that is requested; each of the singles below breaks one.
    let pairs = (0..120).flat_map(|index| [10_000 + 8 * index, 10_001 + 8 * index]);
    let singles = (0..100).map(|index| 100 + 2 * index);
    let pages: Vec<u64> = singles.chain(pairs).collect();
    let wish = PageRequirements {
        below_4g: 32 * PAGE,
        ..wish(240)
    };
    let (choice, cost) = of_choice(&hpas(&pages), &wish);
    assert_eq!(cost.unsafe_extents, 0);
    // As many as there can be; half of them at least are found.
    let low = choice.chosen.below_4g / PAGE;
    assert!((7..=14).contains(&low), "{low}");
}

#[test]
fn what_is_offered_has_room_for_the_kernel() {
    let singles = |count| (0..count).map(|index| 4000 + 2 * index);
    let pages: Vec<u64> = singles(140).chain(9000..9008).collect();
    let wish = PageRequirements {
        boot: BLOCK,
        ..wish(140)
    };
    let choice = choose(&hpas(&pages), PAGE, &wish);
    assert!(choice.placed && !choice.is_safe());
    assert_eq!(choice.safe_pages, Some(8 + 126));
    let homeless: Vec<u64> = singles(140).collect();
    let choice = choose(&hpas(&homeless), PAGE, &wish);
    assert_eq!((choice.placed, choice.safe_pages), (false, None));
}

#[test]
fn good_pages_need_no_others() {
    let one: Vec<u64> = (4000..4256).collect();
    assert!(is_good(&hpas(&one), PAGE, &wish(256)));
    let low = PageRequirements {
        below_4g: 1,
        ..wish(256)
    };
    assert!(!is_good(&hpas(&one), PAGE, &low));
    let scattered: Vec<u64> = (0..256).map(|index| 4000 + 4 * index).collect();
    assert!(!is_good(&hpas(&scattered), PAGE, &wish(256)));
    let kernel = PageRequirements {
        boot: kernel(u64::MAX / 2),
        ..wish(256)
    };
    assert!(!is_good(&hpas(&one), PAGE, &kernel));
}

#[test]
fn pages_of_a_gib_are_chosen_too() {
    let gib = 1 << 30;
    let pages = [9, 4, 5, 2].map(|number| Hpa(number * gib));
    let choice = choose(&pages, gib, &wish(2));
    assert_eq!(choice.kept, [1, 2]);
    assert_eq!(choice.chosen.extents, 1);
}

fn pool() -> impl Strategy<Value = Vec<Hpa>> {
    let runs = prop::collection::vec((0_u64..8_000, 1_u64..40), 1..24);
    (runs, any::<u64>()).prop_map(|(runs, seed)| {
        let frames: BTreeSet<u64> = runs
            .iter()
            .flat_map(|(start, length)| *start..start + length)
            .filter(|frame| *frame != 0)
            .collect();
        let mut frames: Vec<u64> = frames.into_iter().collect();
        // Some order, as a pool gives pages.
        frames.sort_by_key(|frame| frame.wrapping_mul(seed | 1).rotate_left(17));
        hpas(&frames)
    })
}

#[test]
fn pages_that_devices_do_not_reach_are_never_kept() {
    // Raspberry Pi 4: of 4 GiB with a hole, 3 GiB are reached.
    let dma = DmaMap::Ranges(vec![BusRange {
        cpu: Hpa(0)..Hpa(3 << 30),
        bus: BusAddr(0),
    }]);
    let beyond = (3 << 30) / PAGE;
    // A block above, a scattered half below; the last page reached ends at the border.
    let above = beyond..beyond + 64;
    let below = (1..=40).map(|index| beyond - 2 * index + 1);
    let pages = hpas(&above.chain(below).collect::<Vec<_>>());
    let wish = |pages| PageRequirements {
        dma: &dma,
        ..wish(pages)
    };
    assert!(!is_good(&pages[..64], PAGE, &wish(64)));
    let choice = choose(&pages, PAGE, &wish(40));
    assert_eq!(choice.kept, (64..104).collect::<Vec<_>>());
    assert_eq!((choice.pinned, choice.chosen.extents), (104, 40));
    // Fewer than requested rather than one of these.
    assert_eq!(choose(&pages, PAGE, &wish(50)).kept.len(), 40);
}

#[test]
fn pages_that_moved_are_judged_where_they_are() {
    let dma = DmaMap::Ranges(vec![BusRange {
        cpu: Hpa(0)..Hpa(3 << 30),
        bus: BusAddr(0),
    }]);
    let wish = PageRequirements {
        dma: &dma,
        ..wish(3)
    };
    let choice = choose(&hpas(&[10, 20, 21, 22, 30]), PAGE, &wish);
    assert_eq!(
        (&choice.kept[..], choice.chosen.extents),
        (&[1, 2, 3][..], 1)
    );
    let moved = choice.clone().of_moved(&hpas(&[20, 40, 22]), PAGE, &wish);
    assert_eq!((&moved.kept[..], moved.chosen.extents), (&[1, 2, 3][..], 3));
    assert_eq!((moved.pinned, moved.naive), (choice.pinned, choice.naive));
    let beyond = (3 << 30) / PAGE;
    let moved = choice.of_moved(&hpas(&[20, beyond, 22]), PAGE, &wish);
    assert_eq!(moved.kept, [1, 3]);
}

proptest! {

    /// What is kept is reached, and as good as if the other pages were not there.
    #[test]
    fn pages_beyond_the_reach_change_nothing(
        pages in pool(), percent in 0_usize..120, start in 0_u64..4_000, len in 1_u64..8_000,
    ) {
        let cpu = Hpa(start * PAGE)..Hpa((start + len) * PAGE);
        let bus = BusAddr(1 << 40);
        let dma = DmaMap::Ranges(vec![BusRange { cpu: cpu.clone(), bus }]);
        let inside: Vec<Hpa> = pages.iter().copied().filter(|page| cpu.contains(page)).collect();
        let count = inside.len() * percent / 100;
        let choice = choose(&pages, PAGE, &PageRequirements { dma: &dma, ..wish(count) });
        let kept: Vec<Hpa> = choice.kept.iter().map(|number| pages[*number]).collect();
        prop_assert!(kept.iter().all(|page| cpu.contains(page)));
        let alone = choose(&inside, PAGE, &wish(count));
        let expected: Vec<Hpa> = alone.kept.iter().map(|number| inside[*number]).collect();
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(choice.chosen, alone.chosen);
    }

    /// The right number of pages, each one once, never worse than the first ones, and what is
    /// reported of them is true.
    #[test]
    fn a_choice_is_sound_and_never_worse(
        pages in pool(), percent in 0_usize..120, below_4g in 0..200 * PAGE, needs_block: bool,
    ) {
        let count = pages.len() * percent / 100;
        let boot = if needs_block { BLOCK } else { ANYWHERE };
        let wish = PageRequirements { below_4g, boot, ..wish(count) };
        let choice = choose(&pages, PAGE, &wish);
        prop_assert_eq!(choice.kept.len(), count.min(pages.len()));
        prop_assert!(choice.kept.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(choice.kept.iter().all(|number| *number < pages.len()));
        let kept: Vec<Hpa> = choice.kept.iter().map(|number| pages[*number]).collect();
        let first = &pages[..kept.len()];
        prop_assert!(cost(&kept, &wish) <= cost(first, &wish));
        prop_assert_eq!(choice.chosen, Overhead::of(&ranges(&kept, PAGE)));
        prop_assert_eq!(choice.naive, Overhead::of(&ranges(first, PAGE)));
        prop_assert_eq!(&choice, &choose(&pages, PAGE, &wish));
    }

    /// A choice is safe if any is; if not, the size that is offered is the largest that is.
    #[test]
    fn the_choice_is_safe_or_the_largest_safe_size_offered(
        lengths in prop::collection::vec(1_u64..4, 100..180), percent in 50_usize..=100,
        below_4g in prop_oneof![Just(0), 0..64 * PAGE], seed: u64,
    ) {
        let run = |(index, length): (u64, &u64)| 100 + 40 * index..100 + 40 * index + length;
        let mut frames: Vec<u64> = (0..).zip(&lengths).flat_map(run).collect();
        frames.sort_by_key(|frame| frame.wrapping_mul(seed | 1).rotate_left(17));
        let pages = hpas(&frames);
        let mut longest = lengths.clone();
        longest.sort_unstable_by_key(|length| Reverse(*length));
        let most: u64 = longest.iter().take(PIECES).sum();
        let most = usize::try_from(most).unwrap();
        let wish = PageRequirements { below_4g, ..wish(pages.len() * percent / 100) };
        let choice = choose(&pages, PAGE, &wish);
        prop_assert_eq!(choice.is_safe(), wish.pages <= most);
        prop_assert_eq!(choice.safe_pages, (wish.pages > most).then_some(most));
        let offered = choose(&pages, PAGE, &PageRequirements { pages: most, ..wish });
        prop_assert!(offered.is_safe() && offered.kept.len() == most);
    }

    /// A kernel that fits into some of the pages has its place in the choice.
    #[test]
    fn a_block_is_found_if_there_is_one(pages in pool(), more in 0_usize..200) {
        let wish = PageRequirements { boot: BLOCK, ..wish(8 + more) };
        let (_, cost) = of_choice(&pages, &wish);
        prop_assert_eq!(cost.unplaced, !block(&ranges(&pages, PAGE)) || pages.len() < 8);
    }

    /// As few sections as the best of all selections, and as few extents as the best of those
    /// that are as cheap, or one more.
    #[test]
    fn nothing_is_cheaper(
        frames in prop::collection::btree_set(0_u64..40, 6..12), count in 1_usize..6,
    ) {
        // Four sections of ten places each.
        let at = |frame: &u64| (frame / 10 + 40) * PER_SECTION + frame % 10 + 27;
        let frames: Vec<u64> = frames.iter().map(at).collect();
        let pages = hpas(&frames);
        let wish = wish(count);
        let (_, found) = of_choice(&pages, &wish);
        let selections = 0_u32..1 << pages.len();
        let best = selections
            .filter(|bits| bits.count_ones() as usize == count)
            .map(|bits| {
                let has = |number: &usize| bits & 1 << number != 0;
                let numbers = (0..pages.len()).filter(has);
                cost(&numbers.map(|number| pages[number]).collect::<Vec<_>>(), &wish)
            })
            .min();
        let best = best.unwrap();
        prop_assert_eq!(found.bytes, best.bytes);
        prop_assert!(found.extents <= best.extents + 1, "{:?} {:?}", found, best);
    }
}
