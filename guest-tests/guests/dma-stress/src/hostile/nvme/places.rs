// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What addresses a command can name.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use address::Gpa;

use super::super::ground::Ground;
use crate::memory::Memory;
use crate::ram::Ram;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Words of a page.
const WORDS: u64 = 512;
const DATA: usize = 32;
const LISTS: usize = 8;
const ANSWERS: usize = 8;
const ANSWER_LISTS: usize = 2;
/// Addresses between pieces of memory, where the monitor's own memory may be by its physical address.
const GUESSES: usize = 64;
/// End of these.
const GUESS_END: u64 = 16 << 30;
/// One word of a list of so many is wrong.
const WRONG_WORD: u64 = 1024;

/// Pages by what is in them. The device may write to `data`, `lists` and `answers`.
///
/// Numbers that a device gives in an answer could be the address of a page. So answers are never data of an I/O command,
/// and no list of data is where answers go.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Data of I/O commands.
    pub data: Vec<u64>,
    /// PRP lists of data pages.
    pub lists: Vec<u64>,
    /// Data of admin commands.
    pub answers: Vec<u64>,
    /// PRP lists of pages for answers.
    pub answer_lists: Vec<u64>,
    /// Submission queues.
    pub submissions: Vec<u64>,
    /// Completion queues.
    pub completions: Vec<u64>,
    /// Multiples of a page that are not memory.
    pub wrong: Vec<u64>,
}

impl Places {
    /// Finds pages of which nothing else is on, for so many queue pairs; `own` is where the controller's registers are.
    /// `None` if there are not enough.
    pub fn find<M: Memory>(
        ground: &Ground<'_, M>,
        ram: &Ram,
        own: Gpa,
        random: &mut fastrand::Rng,
    ) -> Option<Self> {
        let mut used = BTreeSet::new();
        let mut take = |count: usize, random: &mut fastrand::Rng| {
            let mut pages = Vec::new();
            for _ in 0..64 * count {
                let page = ground.place(1, random)?.0;
                if pages.len() < count && used.insert(page) {
                    pages.push(page);
                }
            }
            (pages.len() == count).then_some(pages)
        };
        Some(Self {
            data: take(DATA, random)?,
            lists: take(LISTS, random)?,
            answers: take(ANSWERS, random)?,
            answer_lists: take(ANSWER_LISTS, random)?,
            submissions: take(super::QUEUES, random)?,
            completions: take(super::QUEUES, random)?,
            wrong: wrong(ram, own, random),
        })
    }

    /// All pages that are not as the ground has them.
    pub fn pages(&self) -> impl Iterator<Item = Gpa> {
        let all = [
            &self.data,
            &self.lists,
            &self.answers,
            &self.answer_lists,
            &self.submissions,
            &self.completions,
        ];
        all.into_iter().flatten().copied().map(Gpa)
    }

    /// A word for a slot of a list in `data` or `lists`: the last slot of a page leads on.
    pub fn word(&self, slot: u64, random: &mut fastrand::Rng) -> u64 {
        let from = match random.u64(..WRONG_WORD) {
            0 => &self.wrong,
            _ if slot % WORDS == WORDS - 1 && random.u64(..8) > 0 => &self.lists,
            _ => &self.data,
        };
        choose(from, random)
    }

    /// Fills lists and data with such words, and the lists of answers with pages for answers.
    pub fn fill(&self, memory: &impl Memory, random: &mut fastrand::Rng) {
        for page in self.data.iter().chain(&self.lists) {
            let mut slot = 0;
            let next = || {
                slot += 1;
                self.word(slot - 1, random)
            };
            fill(memory, *page, next);
        }
        for page in &self.answer_lists {
            fill(memory, *page, || choose(&self.answers, random));
        }
    }
}

fn fill(memory: &impl Memory, page: u64, next: impl FnMut() -> u64) {
    let filled = memory.fill(Gpa(page), 4096, next);
    debug_assert!(filled.is_ok(), "places are in RAM");
}

/// One of these; 0 if there is none.
pub fn choose(from: &[u64], random: &mut fastrand::Rng) -> u64 {
    let place = random.usize(..from.len().max(1));
    from.get(place).copied().unwrap_or(0)
}

/// Pages around memory, in the device's own registers, where interrupts are sent to, at ends of numbers, and where the
/// monitor's queues may be.
fn wrong(ram: &Ram, own: Gpa, random: &mut fastrand::Rng) -> Vec<u64> {
    let mut all = Vec::from([
        own.0,
        // Doorbells, one of which may be memory: the completion queue's of queue 1.
        own.0 + PAGE,
        own.0 + 4 * PAGE,
        0xfee0_0000,
        1 << 47,
        1 << 52,
        1 << 63,
        u64::MAX - PAGE + 1,
    ]);
    for extent in ram.extents() {
        all.extend([extent.end.0, extent.start.0.saturating_sub(PAGE)]);
    }
    all.extend((0..GUESSES).map(|_| random.u64(..GUESS_END / PAGE) * PAGE));
    // Low memory may be memory, whoever reserves it.
    let is_memory = |page: u64| {
        let is_in = |range: &core::ops::Range<Gpa>| range.contains(&Gpa(page));
        page < 1 << 20 || ram.extents().iter().any(is_in)
    };
    all.retain(|page| !is_memory(*page));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_no_memory() {
        let extents = [
            Gpa(0x10_0000)..Gpa(0x80_0000),
            Gpa(0x80_0000)..Gpa(0x4000_0000),
        ];
        let ram = Ram::new(&extents);
        let own = Gpa(0xe000_0000);
        let found = wrong(&ram, own, &mut fastrand::Rng::with_seed(1));
        assert!(found.len() > 40, "{}", found.len());
        for page in &found {
            assert_eq!(page % PAGE, 0);
            assert!(!(0..0x4000_0000).contains(page), "{page:#x}");
        }
        for page in [own.0, 0x4000_0000, 1 << 52, !0xfff] {
            assert!(found.contains(&page), "{page:#x}");
        }
    }
}
