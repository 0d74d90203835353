// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A map in the shape of SPDK's `lib/env_dpdk/memory.c`: a top of 1 GiB steps over 48 bits, and
//! below it one array of translations for 2 MiB and one of arrays for 4 KiB.

type Translations = [u64; 512];

/// The entry where nothing is mapped.
const UNMAPPED: u64 = u64::MAX;

#[derive(Clone, Default)]
struct Slot {
    of_2mib: Option<Box<Translations>>,
    of_4kib: Option<Box<[Option<Box<Translations>>; 512]>>,
}

pub struct SpdkMap {
    top: Vec<Slot>,
}

impl SpdkMap {
    pub fn new() -> Self {
        Self {
            top: vec![Slot::default(); 1 << 18],
        }
    }

    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    pub fn insert_2mib(&mut self, iova: u64, hpa: u64) {
        let slot = &mut self.top[index(iova, 30, 1 << 18)];
        let map = slot
            .of_2mib
            .get_or_insert_with(|| Box::new([UNMAPPED; 512]));
        map[index(iova, 21, 512)] = hpa;
    }

    pub fn insert_4kib(&mut self, iova: u64, hpa: u64) {
        let slot = &mut self.top[index(iova, 30, 1 << 18)];
        let maps = slot
            .of_4kib
            .get_or_insert_with(|| Box::new([const { None }; 512]));
        let map = maps[index(iova, 21, 512)].get_or_insert_with(|| Box::new([UNMAPPED; 512]));
        map[index(iova, 12, 512)] = hpa;
    }

    #[inline(always)]
    pub fn get_2mib(&self, iova: u64) -> Option<u64> {
        let slot = self.top.get(usize::try_from(iova >> 30).ok()?)?;
        let hpa = slot.of_2mib.as_ref()?[index(iova, 21, 512)];
        (hpa != UNMAPPED).then_some(hpa + (iova & 0x1f_ffff))
    }

    #[inline(always)]
    pub fn get_4kib(&self, iova: u64) -> Option<u64> {
        let slot = self.top.get(usize::try_from(iova >> 30).ok()?)?;
        let map = slot.of_4kib.as_ref()?[index(iova, 21, 512)].as_ref()?;
        let hpa = map[index(iova, 12, 512)];
        (hpa != UNMAPPED).then_some(hpa + (iova & 0xfff))
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than `entries`")]
fn index(iova: u64, shift: u32, entries: u64) -> usize {
    (iova >> shift & (entries - 1)) as usize
}
