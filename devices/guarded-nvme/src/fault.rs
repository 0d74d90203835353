// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What ends a controller: the device does what no device does, or does not do what it has to.

use address::Gpa;
use thiserror::Error;

use crate::spec::Status;

/// Why the guest is shown a fatal status (CSTS.CFS) and the device is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// CC, AQA, ASQ or ACQ is not one that is offered. The device was not touched.
    #[error("the guest enabled its controller with {register} {value:#x}, which is not offered")]
    Configuration {
        /// The register's name.
        register: &'static str,
        /// What the guest had stored.
        value: u64,
    },
    /// CSTS.CFS.
    #[error("the device reports a fatal status")]
    Fatal,
    /// BAR0 reads as all ones.
    #[error("the device does not respond")]
    Gone,
    /// CSTS.RDY is not set in time.
    #[error("the device is not ready {0} ms after it was enabled")]
    NotReady(u64),
    /// A completion that belongs to no command.
    #[error(
        "completion queue {queue} has command {cid} of submission queue {from}, which is not outstanding"
    )]
    UnknownCommand {
        /// The completion queue.
        queue: u16,
        /// SQID of the completion.
        from: u16,
        /// CID of the completion.
        cid: u16,
    },
    /// An SQ Head Pointer that is not between the old one and the tail.
    #[error(
        "submission queue {queue} was at entry {old} of up to {tail}, and is reported at {new}"
    )]
    QueueHead {
        /// The submission queue.
        queue: u16,
        /// Where the device had been.
        old: u16,
        /// Where the monitor is.
        tail: u16,
        /// SQHD of the completion.
        new: u16,
    },
    /// A queue of the guest's is no longer memory.
    #[error("the queue entry at {0} is no memory")]
    QueueMemory(Gpa),
    /// A command of the monitor's own failed, or its answer makes no sense.
    #[error("the device's answer to {command}: {status}")]
    OwnCommand {
        /// What the command asks for.
        command: &'static str,
        /// The status.
        status: Status,
    },
    /// A command of the monitor's own is not answered in time.
    #[error("the device does not answer {0}")]
    NoAnswer(&'static str),
    /// The device cannot be guarded.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
}

/// Why a device cannot be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unsuitable {
    /// BAR0 reads as all ones.
    #[error("the device does not respond")]
    Gone,
    /// CAP.CSS bit 0 is 0.
    #[error("the device does not have the NVM command set (CAP {0:#x})")]
    NoNvm(u64),
    /// CAP.MPSMIN is not 0.
    #[error("the device's least page size is 2^{0} bytes; 4 KiB is needed")]
    PageSize(u8),
    /// CAP.MQES is 0.
    #[error("the device's queues have one entry (CAP {0:#x})")]
    QueueSize(u64),
    /// VS is below 1.1.
    #[error("the device is of version {0:#x}; 1.1 is needed (list of active namespaces)")]
    Version(u32),
    /// CNTRLTYPE is that of a discovery or administrative controller.
    #[error("the device is a controller of type {0}; an I/O controller is needed")]
    Type(u8),
    /// SQES or CQES do not include 64 or 16 bytes.
    #[error(
        "the device's entry sizes are {submission:#x} and {completion:#x}; 64 and 16 bytes are needed"
    )]
    EntrySizes {
        /// SQES.
        submission: u8,
        /// CQES.
        completion: u8,
    },
    /// The controller list names another controller.
    #[error(
        "controller {0:#x} is in the subsystem too, and could change what this one was checked for"
    )]
    SharedSubsystem(u16),
    /// CMIC says that there may be others, and the list cannot be read.
    #[error("the subsystem may have several controllers, and the list of them cannot be read: {0}")]
    UnknownSubsystem(Status),
    /// There is no memory for queues.
    #[error("no memory for {0} I/O queues and their lists that the device can reach")]
    Memory(u16),
}
