// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shapes the pool of hugepages: one large block and many single pages, in no order.
//!
//! All pages of the pool are taken, and those that are to be free are released one by one. The
//! kernel hands out first what came back last (mm/hugetlb.c, `enqueue_hugetlb_folio` puts it at the
//! head of its list), so the block, released last, is where a kernel image finds room; released
//! first, it is available only to callers that takes all pages.

use super::pages::{Backing, Mapping, pagemap};
use crate::error::{AtPath, Error, Result};

/// Bytes in a hugepage, and small pages in it.
const HUGEPAGE: usize = 2 << 20;
const FRAMES: u64 = 512;

/// The requested shape of the pool.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Shape {
    /// Single pages to leave free, no two of them neighbours.
    #[arg(long, default_value_t = 150)]
    singles: usize,
    /// Pages in the block to leave free in one piece.
    #[arg(long, default_value_t = 64)]
    block: usize,
    /// Seed of the order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give the block back first, so that it is taken last.
    #[arg(long)]
    block_first: bool,
}

/// Shapes the pool, runs the command, and returns its status.
///
/// # Errors
/// [`Error::Usage`] if the pool does not hold such a shape, or what the command's start returns.
pub fn run(shape: Shape, command: &[String]) -> Result<i32> {
    let mut held = take_all()?;
    let frames: Vec<u64> = held.iter().map(|(frame, _)| *frame).collect();
    let freed = to_free(&frames, shape)
        .ok_or_else(|| Error::Usage(format!("{} hugepages do not hold {shape:?}", frames.len())))?;
    for frame in &freed {
        held.retain(|(own, _)| own != frame);
    }
    println!("testbed: shaped={}", extents(&freed));
    super::run(command)
}

/// Every page that the pool can give, with its frame number.
fn take_all() -> Result<Vec<(u64, Mapping)>> {
    let pagemap = pagemap()?;
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let count: usize = std::fs::read_to_string(free)
        .at("read", free)?
        .trim()
        .parse()
        .unwrap_or(0);
    let pages = (0..count).map_while(|_| Mapping::new(HUGEPAGE, Backing::Hugepage).ok());
    let mut held = Vec::new();
    for page in pages {
        let frame = page.frames(&pagemap)?.first().copied().flatten();
        let frame = frame.ok_or_else(|| Error::Usage("A locked hugepage is not present".into()))?;
        held.push((frame, page));
    }
    Ok(held)
}

/// Which pages to release, in this order: the singles in no order, then the block; or the other way
/// round.
fn to_free(frames: &[u64], shape: Shape) -> Option<Vec<u64>> {
    let mut sorted = frames.to_vec();
    sorted.sort_unstable();
    let is_run = |pages: &[u64]| pages.windows(2).all(|pair| pair[1] == pair[0] + FRAMES);
    let start = sorted.windows(shape.block).position(is_run)?;
    let block = sorted[start..start + shape.block].to_vec();
    let near_block = block.first()?.saturating_sub(FRAMES)..=block.last()? + FRAMES;
    let mut singles: Vec<u64> = Vec::new();
    for frame in sorted {
        let follows = singles.last().is_some_and(|last| frame <= last + FRAMES);
        if !near_block.contains(&frame) && !follows {
            singles.push(frame);
        }
    }
    let mut random = fastrand::Rng::with_seed(shape.seed);
    random.shuffle(&mut singles);
    if singles.len() < shape.singles {
        return None;
    }
    singles.truncate(shape.singles);
    Some(match shape.block_first {
        true => block.into_iter().chain(singles).collect(),
        false => singles.into_iter().chain(block).collect(),
    })
}

/// Number of contiguous runs.
fn extents(frames: &[u64]) -> usize {
    let mut sorted = frames.to_vec();
    sorted.sort_unstable();
    let gaps = sorted
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + FRAMES)
        .count();
    gaps + usize::from(!sorted.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        singles: 4,
        block: 3,
        seed: 1,
        block_first: false,
    };

    fn pool(count: u64) -> Vec<u64> {
        (0..count).map(|page| (page + 1) * FRAMES).rev().collect()
    }

    #[test]
    fn block_comes_first_if_requested() {
        let first = Shape {
            block_first: true,
            ..SHAPE
        };
        let last = to_free(&pool(20), SHAPE).unwrap();
        let freed = to_free(&pool(20), first).unwrap();
        assert_eq!(freed[..3], last[4..]);
        assert_eq!(freed[3..], last[..4]);
    }

    #[test]
    fn block_comes_last_and_singles_touch_nothing() {
        let freed = to_free(&pool(20), SHAPE).unwrap();
        assert_eq!(freed.len(), 7);
        assert_eq!(freed[4..], [512, 1024, 1536]);
        assert_eq!(extents(&freed), 5);
        assert!(!freed[..4].is_sorted() && !freed[..4].is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn pool_without_room_is_refused() {
        assert_eq!(to_free(&pool(8), SHAPE), None);
        let scattered: Vec<u64> = (0..50).map(|page| page * 2 * FRAMES).collect();
        assert_eq!(to_free(&scattered, SHAPE), None);
        assert_eq!(to_free(&[], SHAPE), None);
    }
}
