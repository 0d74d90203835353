// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Admin commands (Base 5): opcodes, Identify's structures, log pages, features.

/// Delete I/O Submission Queue.
pub const DELETE_SQ: u8 = 0x00;
/// Create I/O Submission Queue.
pub const CREATE_SQ: u8 = 0x01;
/// Get Log Page.
pub const GET_LOG_PAGE: u8 = 0x02;
/// Delete I/O Completion Queue.
pub const DELETE_CQ: u8 = 0x04;
/// Create I/O Completion Queue.
pub const CREATE_CQ: u8 = 0x05;
/// Identify.
pub const IDENTIFY: u8 = 0x06;
/// Abort.
pub const ABORT: u8 = 0x08;
/// Set Features.
pub const SET_FEATURES: u8 = 0x09;
/// Get Features.
pub const GET_FEATURES: u8 = 0x0a;
/// Asynchronous Event Request.
pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
/// Keep Alive.
pub const KEEP_ALIVE: u8 = 0x18;

/// Identify's Controller or Namespace Structure (CNS, Base 5.1.13).
pub mod cns {
    /// Identify Namespace.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active Namespace ID list.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace Identification Descriptor list.
    pub const DESCRIPTORS: u8 = 0x03;
    /// I/O Command Set specific Identify Namespace.
    pub const SPECIFIC_NAMESPACE: u8 = 0x05;
    /// I/O Command Set specific Identify Controller.
    pub const SPECIFIC_CONTROLLER: u8 = 0x06;
    /// I/O Command Set Independent Identify Namespace.
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// Controller list of the subsystem.
    pub const CONTROLLERS: u8 = 0x13;
    /// I/O Command Set data structure.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Log Page Identifiers (Base 5.1.12).
pub mod lid {
    /// Supported Log Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error Information.
    pub const ERRORS: u8 = 0x01;
    /// SMART / Health Information.
    pub const HEALTH: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE_SLOTS: u8 = 0x03;
    /// Changed Attached Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const COMMANDS: u8 = 0x05;
    /// Device Self-test.
    pub const SELF_TEST: u8 = 0x06;
    /// Endurance Group Information.
    pub const ENDURANCE_GROUP: u8 = 0x09;
    /// Feature Identifiers Supported and Effects.
    pub const FEATURES: u8 = 0x12;
    /// Rotational Media Information.
    pub const ROTATIONAL_MEDIA: u8 = 0x16;
}

/// Feature Identifiers (Base 5.1.25).
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power Management.
    pub const POWER: u8 = 0x02;
    /// Temperature Threshold.
    pub const TEMPERATURE: u8 = 0x04;
    /// Error Recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile Write Cache.
    pub const WRITE_CACHE: u8 = 0x06;
    /// Number of Queues.
    pub const QUEUES: u8 = 0x07;
    /// Interrupt Coalescing.
    pub const COALESCING: u8 = 0x08;
    /// Interrupt Vector Configuration.
    pub const VECTOR: u8 = 0x09;
    /// Write Atomicity Normal.
    pub const ATOMICITY: u8 = 0x0a;
    /// Asynchronous Event Configuration.
    pub const EVENTS: u8 = 0x0b;
    /// Host Memory Buffer.
    pub const HOST_MEMORY: u8 = 0x0d;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 0x0e;
    /// Keep Alive Timer.
    pub const KEEP_ALIVE: u8 = 0x0f;
    /// Host Controlled Thermal Management.
    pub const THERMAL: u8 = 0x10;
    /// Non-Operational Power State Configuration.
    pub const NON_OPERATIONAL: u8 = 0x11;
    /// Host Behavior Support.
    pub const HOST_BEHAVIOR: u8 = 0x16;
    /// Host Identifier.
    pub const HOST_ID: u8 = 0x81;
}

/// Asynchronous Event Configuration: namespace attribute notices (feature 0Bh, bit 8).
pub const NAMESPACE_NOTICES: u32 = 1 << 8;
/// Asynchronous Event Configuration: firmware activation notices (feature 0Bh, bit 9).
pub const FIRMWARE_NOTICES: u32 = 1 << 9;
/// Asynchronous Event Configuration: SMART critical warnings (feature 0Bh, bits 7:0).
pub const HEALTH_WARNINGS: u32 = 0xff;
