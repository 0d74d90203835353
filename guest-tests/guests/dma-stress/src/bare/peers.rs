// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that do DMA to one another.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use dma_stress::options::Options;
use dma_stress::ram::Ram;
use dma_stress::report::Report;
use dma_stress::stress::{self, Job, Shared};
use stress_format::{Engine, Interrupt, Record};

use super::engines::{Found, Item};
use super::physical::PhysicalMemory;
use super::serial::Console;

/// Their share of the transfers.
const SHARE: u64 = 4;

/// An engine, and another device's memory.
pub struct Couple<'a> {
    id: u64,
    item: &'a Item,
    memory: Ram,
    options: Options,
}

/// All of them, whose numbers follow those of the engines.
pub fn find<'a>(found: &'a Found, options: &Options) -> Vec<Couple<'a>> {
    let mut couples = Vec::new();
    if !options.wants("p2p") {
        return couples;
    }
    for peer in &found.peers {
        for item in found.items.iter().filter(|item| item.bdf != peer.bdf) {
            let kind = stress::kinds(&**item.engine.lock(), options)
                .last()
                .copied();
            couples.push(Couple {
                id: (found.items.len() + couples.len()) as u64,
                item,
                memory: Ram::new(core::slice::from_ref(&peer.memory)),
                options: Options {
                    transfers: options.transfers / SHARE,
                    bytes: options.bytes / SHARE,
                    interrupt: kind,
                    ..options.clone()
                },
            });
        }
    }
    couples
}

impl Couple<'_> {
    /// How many tests it is.
    pub fn tests(&self) -> u64 {
        stress::tests(&**self.item.engine.lock(), &self.options, &self.memory)
    }

    /// Its record.
    pub fn introduce(&self, report: &Report<Console>) {
        report.record(Record::Engine(Engine {
            id: self.id,
            interrupt: self.options.interrupt.unwrap_or(Interrupt::Polling),
            bdf: &self.item.bdf,
            name: "p2p",
        }));
    }

    /// Runs the engine with buffers in the other device's memory.
    pub fn run(&self, shared: &Shared<'_, PhysicalMemory, Console>) {
        let shared = Shared {
            ram: &self.memory,
            options: &self.options,
            ..*shared
        };
        let name = format!("p2p by {}", self.item.name);
        let job = Job {
            shared: &shared,
            id: self.id,
            name: &name,
        };
        job.run(&mut **self.item.engine.lock());
    }
}

/// A device's memory.
pub struct Peer {
    /// Its function.
    pub bdf: alloc::string::String,
    /// Where it is.
    pub memory: Range<Gpa>,
}
