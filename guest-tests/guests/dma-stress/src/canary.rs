// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages that no transfer may touch.

use alloc::vec::Vec;

use address::Gpa;

use crate::memory::Memory;

const PAGE: usize = 4096;
const MARK: u64 = 0x5ca1_ab1e_0000_0000;

/// Pages, each with words that encode their address.
#[derive(Debug)]
pub struct Canaries(Vec<Gpa>);

fn words(page: Gpa) -> impl FnMut() -> u64 {
    let mut word = page.0 ^ MARK;
    move || {
        word = word.wrapping_add(8);
        word
    }
}

impl Canaries {
    /// The canaries on these pages, which nothing else uses.
    #[must_use]
    pub fn new(pages: Vec<Gpa>) -> Self {
        Self(pages)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts them there.
    pub fn write(&self, memory: &impl Memory) {
        for page in &self.0 {
            let written = memory.fill(*page, PAGE, words(*page));
            debug_assert!(written.is_ok(), "canaries are in RAM");
        }
    }

    /// Counts those that changed, and reports the first address in each that did.
    pub fn check(&self, memory: &impl Memory, mut tell: impl FnMut(Gpa)) -> u64 {
        let mut hits = 0;
        for page in &self.0 {
            let first = memory.first_difference(*page, PAGE, words(*page));
            if let Some(offset) = first.unwrap_or(Some(0)) {
                hits += 1;
                tell(*page + offset as u64);
            }
        }
        hits
    }
}
