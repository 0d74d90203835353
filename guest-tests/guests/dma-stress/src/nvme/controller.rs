// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The controller: from reset to shutdown.

use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use super::access::{Clock, Dma, DmaBuffer};
use super::cmb::Cmb;
use super::command::{Command, CommandId, Op};
use super::device::Device;
use super::error::{NvmeError, SubmitError};
use super::identify::Namespace;
use super::queue::{MAX_ENTRIES, QueuePair, page};
use super::setup::{IO_QUEUE, Queues};
use super::status::Status;
use crate::registers::Registers;

/// How one command ended.
pub type Completion = (CommandId, Result<(), Status>);

/// Entries of the admin queues.
const ADMIN_ENTRIES: u16 = 8;

/// Of both completion queues: every controller has vector 0, whatever kind of interrupt.
const VECTOR: u16 = 0;

/// An NVMe controller, enabled, with one I/O queue pair.
///
/// Dropping it disables the controller, which stops its DMA; [`shutdown`](Self::shutdown) is
/// the orderly way, and the only one that gives the queues' memory back.
#[derive(Debug)]
pub struct Controller<R: Registers, B: DmaBuffer, C: Clock> {
    device: Device<R, C>,
    /// Never dropped while the controller might still write to it.
    memory: ManuallyDrop<Queues<B>>,
    namespace: Namespace,
    max_transfer: u64,
    cmb: Result<Option<Cmb>, NvmeError>,
    broken: Option<NvmeError>,
}

impl<R: Registers, B: DmaBuffer, C: Clock> Controller<R, B, C> {
    /// Resets the controller behind `registers` (`bar_bytes` bytes of BAR0; memory decode and
    /// bus mastering are on), whatever state it is in, enables it, and creates its queues in memory from `dma`.
    ///
    /// # Errors
    /// Any [`NvmeError`] but those of the controller memory buffer. The controller is then
    /// disabled, where it lets itself be.
    pub fn new<D: Dma<Buffer = B>>(
        registers: R,
        bar_bytes: u64,
        dma: &mut D,
        clock: C,
    ) -> Result<Self, NvmeError> {
        let mut device = Device::open(registers, bar_bytes, clock, IO_QUEUE)?;
        let cmb = device.find_cmb();
        let capabilities = device.capabilities;
        let entries = capabilities.mqes().saturating_add(1).min(MAX_ENTRIES);
        let mut memory = ManuallyDrop::new(Queues {
            admin: QueuePair::new(0, ADMIN_ENTRIES, capabilities, dma)?,
            io: QueuePair::new(IO_QUEUE, entries, capabilities, dma)?,
            answer: page(dma)?,
        });
        let (submissions, completions) = memory.admin.addresses()?;
        device.enable(memory.admin.entries(), submissions, completions)?;
        let (namespace, max_transfer) = memory.identify_all(&device)?;
        memory.create_io_queues(&device, VECTOR)?;
        Ok(Self {
            device,
            memory,
            namespace,
            max_transfer,
            cmb,
            broken: None,
        })
    }

    /// The namespace that commands work on: the first active one.
    #[must_use]
    pub const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The most bytes of a command: a multiple of the block size, at least one block.
    #[must_use]
    pub const fn max_transfer(&self) -> u64 {
        self.max_transfer
    }

    /// How many commands can be in flight: 1 to 63.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.memory.io.depth()
    }

    /// How many commands are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.memory.io.in_flight()
    }

    /// The interrupt vector of the I/O completion queue (and of the admin one): the index in
    /// the MSI-X table, or of the MSI message. With INTx the line stays active until
    /// [`poll`](Self::poll) has taken the completions.
    #[must_use]
    pub const fn interrupt_vector(&self) -> u16 {
        VECTOR
    }

    /// Hands a command to the controller. The memory that its PRPs name, lists included, is
    /// the device's until [`poll`](Self::poll) reports the command's end.
    ///
    /// # Errors
    /// Any [`SubmitError`]; [`SubmitError::Full`] is gone after a completion.
    pub fn submit(&mut self, command: Command) -> Result<CommandId, SubmitError> {
        if let Some(error) = self.broken {
            return Err(SubmitError::Broken(error));
        }
        self.check_length(&command)?;
        let depth = self.depth();
        let entry = command.entry(self.namespace.nsid);
        self.memory
            .io
            .submit(entry, &self.device.registers)
            .ok_or(SubmitError::Full { depth })
    }

    /// Refuses a command whose blocks and PRPs differ in length: the device would take what
    /// follows the PRPs for addresses.
    fn check_length(&self, command: &Command) -> Result<(), SubmitError> {
        let block_bytes = u64::from(self.namespace.block_bytes);
        let most = match command.op {
            Op::Flush => 0,
            // At most 65,536 blocks by its definition.
            Op::Read | Op::Write => {
                u32::try_from(self.max_transfer / block_bytes).unwrap_or(u32::MAX)
            }
        };
        if command.blocks > most || (command.blocks == 0 && most != 0) {
            return Err(SubmitError::Blocks {
                blocks: command.blocks,
                max: most,
            });
        }
        let blocks = u64::from(command.blocks) * block_bytes;
        if command.prp.bytes() != blocks {
            return Err(SubmitError::Length {
                prp: command.prp.bytes(),
                blocks,
            });
        }
        Ok(())
    }

    /// Adds the commands that have ended since the last call to `done`, in the order of their
    /// completions, at most one queue of them. Does not wait.
    ///
    /// # Errors
    /// [`NvmeError::Completion`] if the device posts nonsense; the completions before it are
    /// in `done`. Every call after that gives the error again.
    pub fn poll(&mut self, done: &mut Vec<Completion>) -> Result<(), NvmeError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let polled = self.memory.io.poll(&self.device.registers, |completion| {
            done.push((completion.id, completion.result));
        });
        self.broken = polled.err();
        polled
    }

    /// Asks the controller's registers whether it is well: for when a command does not end.
    ///
    /// # Errors
    /// [`NvmeError::Gone`], [`NvmeError::Fatal`], [`NvmeError::NotReady`], or what
    /// [`poll`](Self::poll) found before.
    pub fn check(&self) -> Result<(), NvmeError> {
        match self.broken {
            Some(error) => Err(error),
            None => self.device.check(),
        }
    }

    /// The controller memory buffer, if there is one. Other devices reach it at its place in
    /// the BAR; this controller's own commands may name it after
    /// [`place_cmb`](Self::place_cmb).
    ///
    /// # Errors
    /// [`NvmeError::Cmb`] if its registers make no sense.
    pub const fn cmb(&self) -> Result<Option<Cmb>, NvmeError> {
        self.cmb
    }

    /// Sets the bus address at which the controller's commands find its memory buffer: that of the
    /// BAR plus [`Cmb::offset`]. From then on the controller takes these addresses for its own.
    ///
    /// # Errors
    /// [`NvmeError::CmbAddress`] if there is no buffer, if the address is not a multiple of
    /// 4096, or if the controller refuses it; [`NvmeError::Cmb`] as [`cmb`](Self::cmb).
    pub fn place_cmb(&mut self, address: u64) -> Result<(), NvmeError> {
        match self.cmb? {
            Some(cmb) => self.device.place_cmb(address, cmb.bytes),
            None => Err(NvmeError::CmbAddress { address }),
        }
    }

    /// Deletes the I/O queues, shuts the controller down (CC.SHN) and disables it. Commands in
    /// flight may or may not be done; after it the device no longer touches their memory.
    ///
    /// # Errors
    /// [`NvmeError::Gone`], or [`NvmeError::Timeout`] with
    /// [`Waiting::Disabled`](super::Waiting::Disabled): the device may still be doing DMA, and
    /// the queues' memory is leaked. Any other error comes from a step before; the device is
    /// disabled then.
    pub fn shutdown(self) -> Result<(), NvmeError> {
        let Self {
            mut device,
            mut memory,
            ..
        } = self;
        let deleted = memory.delete_io_queues(&device);
        let shut_down = device.shut_down();
        if device.is_disabled() {
            drop(ManuallyDrop::into_inner(memory));
        }
        shut_down.and(deleted)
    }
}
