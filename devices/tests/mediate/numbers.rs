// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Choices that are the same in each run.

/// Numbers without a pattern that matters here: SplitMix64.
pub(super) struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        let [.., low, high] = self.next().to_be_bytes();
        from[usize::from(u16::from_be_bytes([low, high])) % from.len()]
    }
}
