// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Blocks of the monitor's own pinned pages, for the queues that a guarded device sees.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::Hpa;
use guarded_nvme::device::{Block, Shape};
use guarded_nvme::spec::{PAGE, PAGE_BYTES};
use iommufd_backend::{FileRange, OwnPages};

const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// Pages that blocks are made of. They belong to one device and stay pinned as long as guest memory does.
#[derive(Debug)]
pub struct Pool {
    pages: OwnPages,
    /// The free ones: where each is for the device, and its number.
    free: Mutex<BTreeMap<u64, usize>>,
}

impl Pool {
    /// All of `pages`, which are pinned.
    pub fn new(pages: OwnPages) -> Arc<Self> {
        let numbered = pages.hpas().iter().map(|hpa| hpa.0).zip(0..);
        let free = Mutex::new(numbered.collect());
        Arc::new(Self { pages, free })
    }

    /// Bytes of all pages.
    pub fn len(&self) -> u64 {
        self.pages.len()
    }

    /// The file that they are in, all of it.
    pub fn file(&self) -> FileRange<'_> {
        self.pages.file()
    }

    /// Where each page is for the device, in the order of the file.
    pub fn hpas(&self) -> &[Hpa] {
        self.pages.hpas()
    }

    /// Logs where the pages are.
    pub fn log(&self) {
        for run in runs(&self.free()) {
            let (hpa, len) = (Hpa(run.start), run.count as u64 * PAGE);
            log::debug!("queue memory hpa={hpa} len={len:#x}");
        }
    }

    /// `count` zeroed pages of a shape. They are taken from the shortest runs of neighbours that serve, so that long runs
    /// last for those that require them.
    pub fn allocate(self: &Arc<Self>, count: usize, shape: Shape) -> Option<PoolBlock> {
        let mut free = self.free();
        let mut runs = runs(&free);
        runs.sort_by_key(|run| (run.count, run.start));
        let taken: Vec<u64> = match shape {
            Shape::Contiguous => {
                let run = runs.iter().find(|run| run.count >= count)?;
                run.addresses().take(count).collect()
            }
            Shape::Pages => runs.iter().flat_map(Run::addresses).take(count).collect(),
        };
        if taken.len() < count {
            return None;
        }
        let take = |hpa: u64| free.remove(&hpa).map(|number| (Hpa(hpa), number));
        let pages = taken.into_iter().filter_map(take).collect();
        drop(free);
        let block = PoolBlock {
            pool: Arc::clone(self),
            pages,
        };
        for word in (0..count * PAGE_BYTES).step_by(8) {
            block.store(word, 0);
        }
        Some(block)
    }

    fn free(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Free pages that are neighbours for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u64,
    count: usize,
}

impl Run {
    fn addresses(&self) -> impl Iterator<Item = u64> + use<> {
        let start = self.start;
        (0..self.count as u64).map(move |page| start + page * PAGE)
    }
}

fn runs(free: &BTreeMap<u64, usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for hpa in free.keys() {
        match runs.last_mut() {
            Some(run) if run.start + run.count as u64 * PAGE == *hpa => run.count += 1,
            _ => runs.push(Run {
                start: *hpa,
                count: 1,
            }),
        }
    }
    runs
}

/// Pages of a [`Pool`], which get back there when it is dropped.
#[derive(Debug)]
pub struct PoolBlock {
    pool: Arc<Pool>,
    /// Where each is for the device, and its number in the pool.
    pages: Box<[(Hpa, usize)]>,
}

impl PoolBlock {
    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let (_, number) = self.pages.get(offset / PAGE_BYTES)?;
        let word = number * PAGE_WORDS + offset % PAGE_BYTES / 8;
        self.pool.pages.words().get(word)
    }
}

impl Block for PoolBlock {
    fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Page 0 where there is no such page: memory that no device is given.
    fn hpa(&self, page: usize) -> Hpa {
        self.pages.get(page).map_or(Hpa(0), |(hpa, _)| *hpa)
    }

    fn load(&self, offset: usize) -> u64 {
        let word = self.word(offset);
        word.map_or(0, |word| u64::from_le(word.load(Ordering::Relaxed)))
    }

    fn store(&self, offset: usize, value: u64) {
        if let Some(word) = self.word(offset) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
    }
}

impl Drop for PoolBlock {
    fn drop(&mut self) {
        let mut free = self.pool.free();
        free.extend(self.pages.iter().map(|(hpa, number)| (hpa.0, *number)));
    }
}

#[cfg(test)]
mod tests {
    use address::Iova;
    use software_memory::{PhysicalMemory, SoftwareBackend};

    use super::*;

    /// Pages in runs of at most so many.
    fn pool(count: usize, longest: u64) -> Arc<Pool> {
        let physical = PhysicalMemory::new([Hpa(4 << 30)..Hpa(5 << 30)], longest * PAGE, 3);
        let mut pages = OwnPages::new(count).unwrap();
        let mut backend = SoftwareBackend::new(physical);
        pages
            .pin(Iova(1 << 30), |request| backend.pin(request))
            .unwrap();
        Pool::new(pages)
    }

    fn addresses(block: &PoolBlock) -> Vec<u64> {
        (0..block.pages()).map(|page| block.hpa(page).0).collect()
    }

    #[test]
    fn contiguous_pages_are_neighbours_and_the_rest_leaves_them_runs() {
        let pool = pool(64, 8);
        let longest = runs(&pool.free()).iter().map(|run| run.count).max();
        assert!(longest >= Some(4), "{longest:?}");
        let scattered = pool.allocate(8, Shape::Pages).unwrap();
        assert_eq!(scattered.pages(), 8);
        let queue = pool.allocate(4, Shape::Contiguous).unwrap();
        let pages = addresses(&queue);
        assert!(pages.windows(2).all(|pair| pair[0] + PAGE == pair[1]));
        let both = addresses(&scattered);
        assert!(pages.iter().all(|page| !both.contains(page)));
        assert!(pool.allocate(64, Shape::Contiguous).is_none());
        assert!(pool.allocate(64 - 11, Shape::Pages).is_none());
        assert!(pool.allocate(64 - 12, Shape::Pages).is_some());
    }

    #[test]
    fn pages_that_come_back_are_given_again_as_zeros() {
        let pool = pool(2, 1);
        assert!(pool.allocate(2, Shape::Contiguous).is_none());
        let block = pool.allocate(2, Shape::Pages).unwrap();
        block.store(8, 7);
        block.store(PAGE_BYTES, 9);
        assert_eq!((block.load(8), block.load(PAGE_BYTES)), (7, 9));
        block.store(2 * PAGE_BYTES, 1);
        assert_eq!(block.load(2 * PAGE_BYTES), 0, "past the end");
        assert!(pool.allocate(1, Shape::Pages).is_none());
        drop(block);
        let again = pool.allocate(2, Shape::Pages).unwrap();
        assert_eq!((again.load(8), again.load(PAGE_BYTES)), (0, 0));
    }
}
