// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether memory that io_uring pins stays where it is: what moves any other page is tried on a page that is not pinned,
//! which must move, and on one that is, which must not.
//!
//! The machine has two NUMA nodes, and its processor is in node 0. Each result is a line `testbed: KEY=RESULT`.

mod block;
mod gigantic;
mod page;

use block::Block;
use iommufd_backend::{FileRange, RingPins};
use page::{Kind, Page};

use crate::error::{Error, Result};

/// A page is moved to here from the other node.
const OTHER_NODE: i32 = 0;

/// Tries everything.
///
/// # Errors
/// [`Error::Usage`] if the machine is not such a one, or an attempt cannot be made; [`Error::File`].
pub fn run() -> Result<i32> {
    contiguous_allocation()?;
    // Before soft offlining: a block does not go online again if it has a page that was taken away.
    for kind in Kind::ALL {
        memory_offlining(kind)?;
    }
    for kind in Kind::ALL {
        for (name, is_pinned) in [("free", false), ("pinned", true)] {
            for (way, apply) in WAYS {
                let page = page_where(kind, |_| true)?;
                let pins = is_pinned.then(|| pinned(&page)).transpose()?;
                if let Err(error) = apply(&page) {
                    println!("{} {name} {way}: {error}", kind.name());
                }
                report(kind, &format!("{name}_{way}"), page.verdict()?);
                drop(pins);
            }
        }
    }
    Ok(0)
}

/// Pages of 1 GiB are made while a page is in the way. Before the other ways, which spread what cannot move.
fn contiguous_allocation() -> Result<()> {
    let first = gigantic::first()?;
    for kind in Kind::ALL {
        for (name, is_pinned) in [("free", false), ("pinned", true)] {
            let page = page_where(kind, |frame| first.contains(&frame))?;
            let pins = is_pinned.then(|| pinned(&page)).transpose()?;
            let is_made = gigantic::make(&page)?;
            println!(
                "{} {name}: a page of 1 GiB was made: {is_made}",
                kind.name()
            );
            report(kind, &format!("{name}_contiguous"), page.verdict()?);
            drop(pins);
        }
    }
    Ok(())
}

/// What moves a page by its address in this process.
type Way = fn(&Page) -> Result<()>;

const WAYS: [(&str, Way); 2] = [
    ("migrate", |page| page.migrate(OTHER_NODE)),
    ("soft_offline", Page::soft_offline),
];

/// A block of memory from which everything moves must not go offline while a page in it is pinned. And a page of a
/// block whose pages must all be movable moves when it is pinned: its address is to be read after that.
fn memory_offlining(kind: Kind) -> Result<()> {
    let block = movable_block(kind)?;
    block.online("online")?;

    let page = page_in(kind, &block)?;
    let pins = pinned(&page)?;
    report(kind, "pinned_block_offline", block.offline(page.frame())?);
    report(kind, "pinned_offline", page.verdict()?);
    drop(pins);
    report(kind, "unpinned_block_offline", block.offline(page.frame())?);
    report(kind, "unpinned_offline", page.verdict()?);
    drop(page);

    block.online("online_movable")?;
    let page = page_in(kind, &block)?;
    let pins = pinned(&page)?;
    report(kind, "movable_pin", page.verdict()?);
    report(kind, "movable_block_offline", block.offline(page.frame())?);
    drop(pins);
    block.online("online")
}

fn report(kind: Kind, key: &str, result: impl std::fmt::Display) {
    println!("testbed: {}_{key}={result}", kind.name());
}

/// The page pinned as the monitor pins guest memory, until the value is dropped.
fn pinned(page: &Page) -> Result<RingPins> {
    let cannot = |error| Error::Usage(format!("Cannot pin a page: {error}"));
    let mut pins = RingPins::new().map_err(cannot)?;
    let part = FileRange::new(page.file(), &page.range());
    pins.keep(part).map_err(cannot)?;
    Ok(pins)
}

/// A block that can go offline, and did; the page in it moved.
fn movable_block(kind: Kind) -> Result<Block> {
    let mut tried: Vec<Block> = Vec::new();
    let is_new =
        |frame, tried: &[Block]| Block::of(frame).is_ok_and(|block| !tried.contains(&block));
    while let Some(page) = Page::find(kind, |frame| is_new(frame, &tried))? {
        let block = Block::of(page.frame())?;
        if block.offline(page.frame())? {
            report(kind, "free_offline", page.verdict()?);
            return Ok(block);
        }
        tried.push(block);
    }
    Err(Error::Usage(format!("None of {tried:?} goes offline")))
}

fn page_in(kind: Kind, block: &Block) -> Result<Page> {
    let is_there = |frame| Block::of(frame).is_ok_and(|found| found == *block);
    Page::find(kind, is_there)?.ok_or_else(|| Error::Usage(format!("No free page is in {block:?}")))
}

fn page_where(kind: Kind, wanted: impl Fn(u64) -> bool) -> Result<Page> {
    Page::find(kind, wanted)?.ok_or_else(|| Error::Usage("No such page is free".into()))
}
