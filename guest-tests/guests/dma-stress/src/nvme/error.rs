// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong with a controller.

use super::status::Status;

/// What the driver waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// CSTS.RDY = 1, after CC.EN was set (by someone before us, or by us).
    Ready,
    /// CSTS.RDY = 0, after CC.EN was cleared.
    Disabled,
    /// CSTS.SHST = 2, after CC.SHN was set.
    ShutDown,
    /// The completion of the admin command with this opcode.
    Admin {
        /// The opcode.
        opcode: u8,
    },
}

/// A completion that no controller that follows the specification posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompletionFault {
    /// No command with this identifier is in flight.
    #[error("it names command {cid:#06x}, which is not in flight")]
    UnknownCommand {
        /// The command identifier (CID).
        cid: u16,
    },
    /// It belongs to another submission queue.
    #[error("it names submission queue {sqid}")]
    WrongQueue {
        /// The submission queue identifier (SQID).
        sqid: u16,
    },
    /// The head pointer lies outside the submission queue.
    #[error("its submission queue head {head} lies outside the queue of {entries} entries")]
    HeadOutOfRange {
        /// The submission queue head pointer (SQHD).
        head: u16,
        /// Entries of the submission queue.
        entries: u16,
    },
}

/// Why a controller cannot be used, or can be used no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvmeError {
    /// A register reads as all ones.
    #[error(
        "Register {register:#x} reads as all ones: the controller was removed, or its memory \
         decode is off"
    )]
    Gone {
        /// Offset of the register in BAR0.
        register: u64,
    },
    /// BAR0 ends before a register that the driver needs.
    #[error(
        "BAR0 has {size:#x} bytes; the registers and doorbells (CAP.DSTRD {stride}) need {need:#x}"
    )]
    BarTooSmall {
        /// Bytes of BAR0.
        size: u64,
        /// Bytes that are needed.
        need: u64,
        /// CAP.DSTRD.
        stride: u8,
    },
    /// CAP.MQES is 0, which no controller may have (Base 1.4 §3.1.1).
    #[error("Queues of one entry only: CAP.MQES is 0")]
    QueuesTooShort,
    /// The smallest memory page is larger than 4 KiB.
    #[error("Memory pages of 4 KiB are not supported: CAP.MPSMIN is {mpsmin}")]
    PageSize {
        /// CAP.MPSMIN: the smallest page has `4096 << mpsmin` bytes.
        mpsmin: u8,
    },
    /// The controller has no NVM command set.
    #[error("No NVM command set: CAP.CSS is {css:#04x}")]
    NoNvmCommandSet {
        /// CAP.CSS.
        css: u8,
    },
    /// Something did not happen in time.
    #[error("No {waiting:?} within {ms} ms (CSTS {csts:#x})")]
    Timeout {
        /// What was waited for.
        waiting: Waiting,
        /// For how long, in milliseconds.
        ms: u64,
        /// Controller status (CSTS) at the end.
        csts: u32,
    },
    /// CSTS.CFS: the controller had a fatal error.
    #[error("The controller reports a fatal error (CSTS {csts:#x})")]
    Fatal {
        /// Controller status (CSTS).
        csts: u32,
    },
    /// The controller left the ready state without a request.
    #[error("The controller is not ready any more (CSTS {csts:#x})")]
    NotReady {
        /// Controller status (CSTS).
        csts: u32,
    },
    /// There is no DMA memory.
    #[error("No DMA memory of {pages} pages")]
    NoMemory {
        /// The pages asked for.
        pages: usize,
    },
    /// DMA memory without an address, or one that is not that of a page.
    #[error("DMA memory at {address:x?} cannot be a queue")]
    UnusableMemory {
        /// Its address for the device.
        address: Option<u64>,
    },
    /// An admin command failed.
    #[error("Admin command {opcode:#04x} failed: {status}")]
    Admin {
        /// The opcode.
        opcode: u8,
        /// How it ended.
        status: Status,
    },
    /// Queue entries have other sizes than 64 and 16 bytes.
    #[error(
        "Queue entries of 64 and 16 bytes are not supported: SQES {sqes:#04x}, CQES {cqes:#04x}"
    )]
    EntrySizes {
        /// Identify Controller: SQES.
        sqes: u8,
        /// Identify Controller: CQES.
        cqes: u8,
    },
    /// There is no namespace to work on.
    #[error("No usable namespace: NN is {namespaces}, the first active one {first}")]
    NoNamespace {
        /// Identify Controller: NN.
        namespaces: u32,
        /// First entry of the list of active namespaces.
        first: u32,
    },
    /// A format that the driver has no use for.
    #[error(
        "Namespace {nsid}: blocks of 2^{lbads} bytes with {metadata} of metadata; 2^9 to 2^16 \
         without are supported"
    )]
    Format {
        /// The namespace.
        nsid: u32,
        /// LBA data size, a power of two.
        lbads: u8,
        /// Metadata bytes of each block.
        metadata: u16,
    },
    /// A namespace of no blocks, or of more bytes than 64 bits count.
    #[error("Namespace {nsid}: {blocks} blocks of {block_bytes} bytes")]
    NamespaceSize {
        /// The namespace.
        nsid: u32,
        /// Its blocks.
        blocks: u64,
        /// Bytes of a block.
        block_bytes: u64,
    },
    /// The largest transfer (MDTS) is shorter than one block.
    #[error("Transfers of at most {max} bytes, blocks of {block_bytes}")]
    TransferTooShort {
        /// Bytes of the largest transfer.
        max: u64,
        /// Bytes of a block.
        block_bytes: u64,
    },
    /// The controller memory buffer's registers make no sense.
    #[error("Controller memory buffer out of range: CMBLOC {location:#x}, CMBSZ {size:#x}")]
    Cmb {
        /// CMBLOC.
        location: u32,
        /// CMBSZ.
        size: u32,
    },
    /// The controller refused the address of its memory buffer (CMBSTS.CBAI), or has none.
    #[error("The controller memory buffer cannot be at {address:#x}")]
    CmbAddress {
        /// The address it was to have.
        address: u64,
    },
    /// A completion that cannot be.
    #[error("Invalid entry in completion queue {queue}: {fault}")]
    Completion {
        /// The completion queue: 0 admin, 1 I/O.
        queue: u16,
        /// What is wrong.
        fault: CompletionFault,
    },
}

/// Why a command was not submitted. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many commands are in flight as the queue holds.
    #[error("{depth} commands are in flight already")]
    Full {
        /// What the queue holds.
        depth: u16,
    },
    /// A number of blocks that a command cannot have, or the controller does not take.
    #[error("{blocks} blocks in a command; 1 to {max} are possible")]
    Blocks {
        /// The blocks asked for.
        blocks: u32,
        /// The most that a command can have here.
        max: u32,
    },
    /// The PRPs describe another number of bytes than the blocks have.
    #[error("The PRPs describe {prp} bytes, the blocks have {blocks}")]
    Length {
        /// Bytes that the PRPs describe.
        prp: u64,
        /// Bytes of the command's blocks.
        blocks: u64,
    },
    /// The controller failed before; only a new [`Controller`](super::Controller) helps.
    #[error("The controller cannot be used any more")]
    Broken(#[source] NvmeError),
}
