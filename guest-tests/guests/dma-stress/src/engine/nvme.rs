// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! NVMe controllers as engines: many transfers under way, data pointers of every shape.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use address::Gpa;
use dma_window::TranslateError;
use stress_format::{FindingKind, Interrupt};

use super::{Direction, Engine, Outcome, Transfer};
use crate::dma_address::DmaMap;
use crate::nvme::{
    Clock, Command, CommandId, Controller, Dma, DmaBuffer, NvmeError, PAGE_BYTES, PrpBuilder,
    PrpList,
};
use crate::registers::Registers;
use crate::shape::Limits;
use crate::signals::{Ended, Signals, Wait};

/// PCI class, subclass and programming interface.
pub const CLASS: (u8, u8, u8) = (1, 8, 2);

const PAGE: u64 = PAGE_BYTES as u64;
/// Transfers under way at once.
const DEPTH: u16 = 16;
/// Longest transfer that is tried, so that a batch fits a small guest.
const MAX_LEN: u64 = 256 << 10;
/// List pages of a transfer: its data has at most 65 pages, so a list of any start fits two.
const LIST_PAGES: usize = 2;
/// Entries with which lists start in turn; from the last one on they cross a page.
const FIRST_ENTRIES: [usize; 6] = [0, 511, 1, 510, 448, 509];
/// To ask is to take the completions, after which the controller lowers its line: an interrupt
/// that is only late must have come by then.
const ASK_AFTER_MS: u64 = 2_000;
const TIMEOUT_MS: u64 = 20_000;

/// The engine.
#[derive(Debug)]
pub struct Nvme<R: Registers, B: DmaBuffer, C: Clock, S> {
    controller: Controller<R, B, C>,
    lists: B,
    signals: S,
    dma: DmaMap,
    kind: Interrupt,
    destroy: bool,
    transfers: usize,
    complaint: Option<String>,
}

/// A command under way.
struct Flight {
    id: Option<CommandId>,
    start: u64,
    outcome: Option<Outcome>,
}

/// What a controller needs besides its registers.
#[derive(Debug)]
pub struct Parts<'a, D, C, S> {
    /// Memory for queues and lists.
    pub memory: &'a mut D,
    /// Time.
    pub clock: C,
    /// Its interrupts.
    pub signals: S,
    /// How addresses are found.
    pub dma: DmaMap,
    /// Whether its namespace may be written.
    pub destroy: bool,
}

impl<R: Registers, B: DmaBuffer, C: Clock, S: Signals> Nvme<R, B, C, S> {
    /// Takes the controller over, whose registers have `bar_bytes` bytes.
    ///
    /// # Errors
    /// Errors of its driver, or [`NvmeError::NoMemory`].
    pub fn new<D: Dma<Buffer = B>>(
        registers: R,
        bar_bytes: u64,
        parts: Parts<'_, D, C, S>,
    ) -> Result<Self, NvmeError> {
        let pages = usize::from(DEPTH) * LIST_PAGES;
        let lists = parts.memory.allocate(pages);
        let lists = lists.ok_or(NvmeError::NoMemory { pages })?;
        let controller = Controller::new(registers, bar_bytes, parts.memory, parts.clock)?;
        Ok(Self {
            controller,
            lists,
            signals: parts.signals,
            dma: parts.dma,
            kind: Interrupt::Polling,
            destroy: parts.destroy,
            transfers: 0,
            complaint: None,
        })
    }

    /// The driver below.
    pub fn controller(&self) -> &Controller<R, B, C> {
        &self.controller
    }

    /// The addresses of the pages that `len` bytes at `gpa` are in.
    fn pages(&self, gpa: Gpa, len: u64) -> Result<Vec<u64>, TranslateError> {
        let first = gpa.align_down(PAGE);
        let count = (gpa + len - first).div_ceil(PAGE);
        (0..count)
            .map(|page| Ok(self.dma.address(first + page * PAGE, PAGE)?.start.0))
            .collect()
    }

    fn submit(&mut self, slot: usize, transfer: &Transfer) -> Result<CommandId, String> {
        let pages = self
            .pages(transfer.gpa, transfer.len)
            .map_err(|error| format!("{error}"))?;
        let list = PrpList {
            buffer: &self.lists,
            first_page: slot * LIST_PAGES,
            first_entry: FIRST_ENTRIES[self.transfers % FIRST_ENTRIES.len()],
        };
        self.transfers += 1;
        let prp = PrpBuilder::new(&pages, transfer.gpa.0 % PAGE, transfer.len)
            .and_then(|builder| builder.build(&list))
            .map_err(|error| format!("{error}"))?;
        let block = u64::from(self.controller.namespace().block_bytes);
        let (lba, blocks) = (transfer.device / block, transfer.len / block);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let command = match transfer.direction {
            Direction::ToDevice if self.destroy => Command::write(lba, blocks, prp),
            Direction::ToDevice => return Err("the disk may not be written".into()),
            Direction::FromDevice => Command::read(lba, blocks, prp),
        };
        self.controller
            .submit(command)
            .map_err(|error| format!("{error}"))
    }

    /// Waits for all flights to land.
    fn land(&mut self, seen: u64, flights: &mut [Flight]) -> Ended {
        let wait = Wait {
            kind: self.kind,
            seen,
            ask_after_ms: ASK_AFTER_MS,
            timeout_ms: TIMEOUT_MS,
        };
        let mut done = Vec::with_capacity(flights.len());
        let (controller, complaint) = (&mut self.controller, &mut self.complaint);
        let signals = &self.signals;
        wait.until(signals, |_| {
            if let Err(error) = controller.poll(&mut done) {
                *complaint = Some(format!("{error}"));
            }
            let now = signals.now();
            for (id, result) in done.drain(..) {
                let Some(flight) = flights.iter_mut().find(|flight| flight.id == Some(id)) else {
                    continue;
                };
                let problem = result.err().map(|status| {
                    *complaint = Some(format!("{status}"));
                    (FindingKind::DeviceError, "the controller refuses it")
                });
                flight.outcome = Some(Outcome {
                    ticks: now.wrapping_sub(flight.start),
                    problem,
                });
            }
            flights.iter().all(|flight| flight.outcome.is_some())
        })
    }
}

impl<R: Registers, B: DmaBuffer, C: Clock, S: Signals> Engine for Nvme<R, B, C, S> {
    fn limits(&self) -> Limits {
        let namespace = self.controller.namespace();
        let granule = u64::from(namespace.block_bytes);
        let most = (self.controller.max_transfer().min(MAX_LEN) / granule * granule).max(granule);
        Limits {
            granule,
            align: 4,
            most,
            usual: most,
            room: namespace.blocks.saturating_mul(granule),
            depth: usize::from(self.controller.depth().min(DEPTH)),
            writable: self.destroy,
        }
    }

    fn kinds(&self) -> Vec<Interrupt> {
        self.signals.kinds()
    }

    fn select(&mut self, kind: Interrupt) -> Result<(), &'static str> {
        self.kind = kind;
        self.signals.select(kind)
    }

    fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    fn run(&mut self, transfers: &[Transfer], outcomes: &mut Vec<Outcome>) {
        let seen = self.signals.count();
        let mut flights = Vec::with_capacity(transfers.len());
        for (slot, transfer) in transfers.iter().enumerate() {
            let start = self.signals.now();
            let submitted = self.submit(slot, transfer);
            let (id, outcome) = match submitted {
                Ok(id) => (Some(id), None),
                Err(why) => {
                    self.complaint = Some(why);
                    let problem = (FindingKind::DeviceError, "it cannot be submitted");
                    (
                        None,
                        Some(Outcome {
                            ticks: 0,
                            problem: Some(problem),
                        }),
                    )
                }
            };
            flights.push(Flight { id, start, outcome });
        }
        let ended = match flights.iter().any(|flight| flight.id.is_some()) {
            true => self.land(seen, &mut flights),
            false => Ended::Done,
        };
        let timeout = Outcome {
            ticks: 0,
            problem: Some((FindingKind::Timeout, "the command does not end")),
        };
        outcomes.extend(
            flights
                .into_iter()
                .map(|flight| flight.outcome.unwrap_or(timeout)),
        );
        // One interrupt may signal many completions; if none came, that is one loss.
        if ended == Ended::Lost
            && let Some(last) = outcomes.last_mut()
            && last.problem.is_none()
        {
            last.problem = Some((
                FindingKind::LostInterrupt,
                "the completions' interrupt did not come",
            ));
        }
    }
}
