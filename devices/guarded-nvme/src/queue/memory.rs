// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of queues, made once when a device is attached.

use crate::device::{Block, Device, Shape};
use crate::spec::{COMPLETION_BYTES, ENTRY_BYTES, PAGE, PAGE_BYTES};

use super::lists::chunk_bytes;

/// Pages for ranges of Dataset Management in each queue; further such commands wait.
pub(crate) const RANGE_PAGES: u8 = 8;

/// What memory is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// I/O queue pairs.
    pub queues: u16,
    /// Entries of each.
    pub depth: u16,
    /// The largest transfer.
    pub mdts: u8,
}

/// Memory of one pair of I/O queues.
#[derive(Debug)]
pub(crate) struct QueueMemory<B> {
    /// The device's submission queue.
    pub submissions: B,
    /// The device's completion queue.
    pub completions: B,
    /// PRP lists.
    pub lists: B,
    /// Ranges of Dataset Management. Never a list: the guest chooses these bytes.
    pub ranges: B,
}

/// Pages of the parts of one pair's memory.
#[derive(Clone, Copy, Debug)]
struct PairPages {
    submissions: usize,
    completions: usize,
    lists: usize,
    ranges: usize,
}

impl PairPages {
    fn of(plan: Plan) -> Self {
        let depth = usize::from(plan.depth);
        let completion = usize::try_from(COMPLETION_BYTES).unwrap_or(16);
        // As many chunks as the queue can have entries out.
        let lists = depth.saturating_sub(1) * chunk_bytes(plan.mdts);
        Self {
            submissions: (depth * ENTRY_BYTES).div_ceil(PAGE_BYTES),
            completions: (depth * completion).div_ceil(PAGE_BYTES),
            lists: lists.div_ceil(PAGE_BYTES),
            ranges: RANGE_PAGES.into(),
        }
    }
}

/// Pages of all pairs.
pub(crate) fn pairs_pages(plan: Plan) -> usize {
    let PairPages {
        submissions,
        completions,
        lists,
        ranges,
    } = PairPages::of(plan);
    usize::from(plan.queues) * (submissions + completions + lists + ranges)
}

impl<B: Block> QueueMemory<B> {
    /// Memory of a pair, if there is any.
    pub fn allocate<D: Device<Block = B>>(device: &mut D, plan: Plan) -> Option<Self> {
        let count = PairPages::of(plan);
        Some(Self {
            submissions: contiguous(device, count.submissions)?,
            completions: contiguous(device, count.completions)?,
            lists: pages(device, count.lists)?,
            ranges: pages(device, count.ranges)?,
        })
    }
}

/// A block of contiguous pages.
pub(crate) fn contiguous<D: Device>(device: &mut D, count: usize) -> Option<D::Block> {
    let block = device.allocate(count, Shape::Contiguous)?;
    let first = block.hpa(0);
    let is_next = |page: usize| first.checked_add(page as u64 * PAGE) == Some(block.hpa(page));
    (is_whole(&block, count) && (0..count).all(is_next)).then_some(block)
}

/// A block of pages anywhere.
pub(crate) fn pages<D: Device>(device: &mut D, count: usize) -> Option<D::Block> {
    let block = device.allocate(count, Shape::Pages)?;
    is_whole(&block, count).then_some(block)
}

fn is_whole<B: Block>(block: &B, count: usize) -> bool {
    block.pages() >= count && (0..count).all(|page| block.hpa(page).is_aligned(PAGE))
}
