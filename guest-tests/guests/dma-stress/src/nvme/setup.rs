// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Admin commands: identification of the controller, and its I/O queues (Base 1.4 §5.3 to §5.6,
//! §5.15, §5.21).

use super::access::{Clock, DmaBuffer};
use super::command::{Sqe, entry};
use super::device::Device;
use super::error::{NvmeError, Waiting};
use super::identify::{ControllerData, Namespace};
use super::prp::Prp;
use super::queue::{QueuePair, address};
use super::registers::CSTS_CFS;
use super::status::Status;
use crate::registers::Registers;

/// How long an admin command may take.
const ADMIN_MS: u64 = 10_000;

const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
const DELETE_COMPLETION_QUEUE: u8 = 0x04;
const CREATE_COMPLETION_QUEUE: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const SET_FEATURES: u8 = 0x09;

/// Identify: a namespace (CNS 00h).
const CNS_NAMESPACE: u32 = 0;
/// Identify: the controller (CNS 01h).
const CNS_CONTROLLER: u32 = 1;
/// Identify: the namespaces that are active, in rising order (CNS 02h, since 1.1).
const CNS_ACTIVE_NAMESPACES: u32 = 2;

/// Set Features: number of queues.
const FEATURE_QUEUES: u32 = 7;

/// The I/O queue pair's identifier, of both queues.
pub(super) const IO_QUEUE: u16 = 1;

/// The memory that the controller uses.
#[derive(Debug)]
pub(super) struct Queues<B> {
    pub(super) admin: QueuePair<B>,
    pub(super) io: QueuePair<B>,
    /// A page for Identify's answers.
    pub(super) answer: B,
}

impl<B: DmaBuffer> Queues<B> {
    /// Runs one admin command to its end.
    fn admin<R: Registers, C: Clock>(
        &mut self,
        device: &Device<R, C>,
        command: Sqe,
    ) -> Result<(), NvmeError> {
        let [opcode, ..] = command[0].to_le_bytes();
        let admin = &mut self.admin;
        // One at a time: there is room unless earlier ones never ended.
        let lost = NvmeError::Timeout {
            waiting: Waiting::Admin { opcode },
            ms: 0,
            csts: 0,
        };
        admin.submit(command, &device.registers).ok_or(lost)?;
        let mut result: Option<Result<(), Status>> = None;
        device.wait(Waiting::Admin { opcode }, ADMIN_MS, |csts| {
            if csts & CSTS_CFS != 0 {
                return Err(NvmeError::Fatal { csts });
            }
            admin.poll(&device.registers, |done| result = Some(done.result))?;
            Ok(result.is_some())
        })?;
        match result {
            Some(Err(status)) => Err(NvmeError::Admin { opcode, status }),
            _ => Ok(()),
        }
    }

    fn identify<R: Registers, C: Clock>(
        &mut self,
        device: &Device<R, C>,
        cns: u32,
        nsid: u32,
    ) -> Result<(), NvmeError> {
        let mut command = entry(IDENTIFY, nsid, Prp::page(address(&self.answer)?));
        command[10] = cns;
        self.admin(device, command)
    }

    /// Finds the first active namespace, and the largest transfer with it in bytes.
    pub(super) fn identify_all<R: Registers, C: Clock>(
        &mut self,
        device: &Device<R, C>,
    ) -> Result<(Namespace, u64), NvmeError> {
        self.identify(device, CNS_CONTROLLER, 0)?;
        let controller = ControllerData::read(&self.answer)?;
        let first = match device.has_active_list() {
            true => {
                self.identify(device, CNS_ACTIVE_NAMESPACES, 0)?;
                self.answer.read32(0)
            }
            false => 1,
        };
        let nsid = controller.check_nsid(first)?;
        self.identify(device, CNS_NAMESPACE, nsid)?;
        let namespace = Namespace::read(nsid, &self.answer)?;
        Ok((namespace, controller.max_transfer(&namespace)?))
    }

    /// Creates the I/O completion queue, with interrupts, and the submission queue.
    pub(super) fn create_io_queues<R: Registers, C: Clock>(
        &mut self,
        device: &Device<R, C>,
        vector: u16,
    ) -> Result<(), NvmeError> {
        let mut command = entry(SET_FEATURES, 0, Prp::NONE);
        command[10] = FEATURE_QUEUES; // dword 11: one of each, 0's based
        self.admin(device, command)?;

        let (submissions, completions) = self.io.addresses()?;
        let size_and_id = u32::from(self.io.entries() - 1) << 16 | u32::from(IO_QUEUE);
        let mut command = entry(CREATE_COMPLETION_QUEUE, 0, Prp::page(completions));
        command[10] = size_and_id;
        command[11] = u32::from(vector) << 16 | 0b11; // IEN, PC
        self.admin(device, command)?;

        let mut command = entry(CREATE_SUBMISSION_QUEUE, 0, Prp::page(submissions));
        command[10] = size_and_id;
        command[11] = u32::from(IO_QUEUE) << 16 | 0b1; // its completion queue; PC
        self.admin(device, command)
    }

    /// Deletes both, in the order that the specification demands.
    pub(super) fn delete_io_queues<R: Registers, C: Clock>(
        &mut self,
        device: &Device<R, C>,
    ) -> Result<(), NvmeError> {
        for opcode in [DELETE_SUBMISSION_QUEUE, DELETE_COMPLETION_QUEUE] {
            let mut command = entry(opcode, 0, Prp::NONE);
            command[10] = IO_QUEUE.into();
            self.admin(device, command)?;
        }
        Ok(())
    }
}
