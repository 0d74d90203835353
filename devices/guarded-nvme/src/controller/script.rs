// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's own commands: before the guest's controller is ready, and when namespaces have changed.

use address::Hpa;

use super::facts::{Facts, namespace_list, other_controller};
use crate::bits::{join16, low16, upper16};
use crate::fault::{Fault, Unsuitable};
use crate::namespaces::{HiddenReason, Namespaces};
use crate::spec::admin::{GET_LOG_PAGE, IDENTIFY, NAMESPACE_NOTICES, SET_FEATURES, cns, fid, lid};
use crate::spec::identify::{NVM_COMMAND_SET, command_set};
use crate::spec::registers::{Capabilities, Version};
use crate::spec::{ALL_NAMESPACES, Cdw, DeviceCommand, PAGE_BYTES, Status};

/// Namespaces of a full list.
const LIST: usize = PAGE_BYTES / 4;
/// Lists that are asked for: more namespaces than are kept.
const MAX_LISTS: u8 = 2;
/// NUMDL of a log page of 4096 bytes.
const LOG_DWORDS: u16 = 1023;

/// What is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Identify Controller.
    Controller,
    /// The controllers of the subsystem.
    Controllers,
    /// Number of Queues.
    Queues,
    /// Asynchronous Event Configuration.
    Events,
    /// Which namespaces have changed. The device reports the next change only after this.
    Changed,
    /// Active namespaces after this one.
    List(u32),
    /// One of the namespaces of the list.
    Namespace,
    /// The descriptors of the same.
    Descriptors,
    /// Nothing.
    Done,
}

/// Commands one after the other, and what the answers say.
#[derive(Debug)]
pub(crate) struct Script {
    step: Step,
    cap: Capabilities,
    version: Version,
    queues: u16,
    /// What the device says of itself.
    pub facts: Facts,
    /// The namespaces, once all is asked.
    pub namespaces: Namespaces,
    /// Those that the device says have changed.
    pub changed: Vec<u32>,
    list: Vec<u32>,
    place: usize,
    lists: u8,
    structure: Box<[u8; PAGE_BYTES]>,
}

impl Script {
    /// All questions, for this number of queues.
    pub fn first(cap: Capabilities, version: Version, queues: u16) -> Self {
        Self {
            step: Step::Controller,
            cap,
            version,
            queues,
            facts: Facts::default(),
            namespaces: Namespaces::default(),
            changed: Vec::new(),
            list: Vec::new(),
            place: 0,
            lists: 0,
            structure: Box::new([0; PAGE_BYTES]),
        }
    }

    /// Namespaces have changed: they are gone through again.
    pub fn review(cap: Capabilities, version: Version) -> Self {
        Self {
            step: Step::Changed,
            ..Self::first(cap, version, 0)
        }
    }

    /// Whether all is asked and answered.
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// What is being asked.
    pub fn name(&self) -> &'static str {
        match self.step {
            Step::Controller => "Identify Controller",
            Step::Controllers => "Identify, controllers of the subsystem",
            Step::Queues => "Set Features, Number of Queues",
            Step::Events => "Set Features, Asynchronous Event Configuration",
            Step::Changed => "Get Log Page, changed namespaces",
            Step::List(_) => "Identify, active namespaces",
            Step::Namespace => "Identify Namespace",
            Step::Descriptors => "Identify, descriptors of a namespace",
            Step::Done => "nothing",
        }
    }

    /// The next command, with its data at `page`; `None` when all is asked.
    pub fn command(&self, page: Hpa) -> Option<DeviceCommand> {
        let nsid = self.nsid();
        let identify = |structure: u8, nsid: u32| {
            DeviceCommand::new(IDENTIFY, nsid)
                .with(Cdw::D10, structure.into())
                .with_prps(page, None)
        };
        let set = |feature: u8, value: u32| {
            DeviceCommand::new(SET_FEATURES, 0)
                .with(Cdw::D10, feature.into())
                .with(Cdw::D11, value)
        };
        let last = self.queues.saturating_sub(1);
        Some(match self.step {
            Step::Controller => identify(cns::CONTROLLER, 0),
            Step::Controllers => identify(cns::CONTROLLERS, 0),
            Step::Queues => set(fid::QUEUES, join16(last, last)),
            Step::Events => set(fid::EVENTS, self.facts.notices & NAMESPACE_NOTICES),
            Step::Changed => DeviceCommand::new(GET_LOG_PAGE, ALL_NAMESPACES)
                .with(Cdw::D10, join16(lid::CHANGED_NAMESPACES.into(), LOG_DWORDS))
                .with_prps(page, None),
            Step::List(after) => identify(cns::ACTIVE_NAMESPACES, after),
            Step::Namespace => identify(cns::NAMESPACE, nsid),
            Step::Descriptors => identify(cns::DESCRIPTORS, nsid),
            Step::Done => return None,
        })
    }

    /// The answer to the last command.
    ///
    /// # Errors
    ///
    /// If the device cannot be used, or refuses what every controller has to answer.
    pub fn answer(&mut self, answer: &Answered<'_>) -> Result<(), Fault> {
        let data = answer.data;
        let required = |name: &'static str| match answer.status {
            status if status.is_success() => Ok(()),
            status => Err(Fault::OwnCommand {
                command: name,
                status,
            }),
        };
        self.step = match self.step {
            Step::Controller => {
                required(self.name())?;
                self.facts = Facts::new(data)?;
                match self.facts.may_be_shared {
                    true => Step::Controllers,
                    false => Step::Queues,
                }
            }
            Step::Controllers => self.check_alone(answer)?,
            Step::Queues => {
                required(self.name())?;
                let least = low16(answer.result).min(upper16(answer.result));
                self.facts.queues = least.saturating_add(1);
                Step::Events
            }
            // A device without notices may refuse; then it gives none.
            Step::Events => Step::List(0),
            Step::Changed => {
                self.note_changed(answer);
                Step::List(0)
            }
            Step::List(after) => {
                required(self.name())?;
                self.take_list(namespace_list(data, after))
            }
            Step::Namespace => self.note_namespace(answer),
            Step::Descriptors => self.note_descriptors(answer),
            Step::Done => Step::Done,
        };
        Ok(())
    }

    /// Another controller of the subsystem could change a namespace's format.
    fn check_alone(&self, answer: &Answered<'_>) -> Result<Step, Fault> {
        if !answer.status.is_success() {
            return Err(Unsuitable::UnknownSubsystem(answer.status).into());
        }
        match other_controller(answer.data, self.facts.id) {
            Some(other) => Err(Unsuitable::SharedSubsystem(other).into()),
            None => Ok(Step::Queues),
        }
    }

    fn note_changed(&mut self, answer: &Answered<'_>) {
        self.changed = match answer.status.is_success() {
            true => namespace_list(answer.data, 0),
            // Any of them.
            false => vec![ALL_NAMESPACES],
        };
    }

    fn note_namespace(&mut self, answer: &Answered<'_>) -> Step {
        let nsid = self.nsid();
        if !answer.status.is_success() {
            self.namespaces.hide(nsid, HiddenReason::Unreadable);
            return self.after_namespace();
        }
        if self.cap.has_command_sets() && self.version >= Version::V1_3 {
            self.structure.copy_from_slice(answer.data);
            return Step::Descriptors;
        }
        self.namespaces.add(nsid, answer.data, NVM_COMMAND_SET);
        self.after_namespace()
    }

    fn note_descriptors(&mut self, answer: &Answered<'_>) -> Step {
        let nsid = self.nsid();
        if answer.status.is_success() {
            let command_set = command_set(answer.data).unwrap_or(NVM_COMMAND_SET);
            let structure = &self.structure[..];
            self.namespaces.add(nsid, structure, command_set);
        } else {
            self.namespaces.hide(nsid, HiddenReason::Unreadable);
        }
        self.after_namespace()
    }

    /// The namespace after this one; after the last, the next list if there may be more.
    fn after_namespace(&mut self) -> Step {
        let done = self.nsid();
        self.place += 1;
        if self.place < self.list.len() {
            return Step::Namespace;
        }
        match self.list.len() == LIST && self.lists < MAX_LISTS {
            true => Step::List(done),
            false => Step::Done,
        }
    }

    fn take_list(&mut self, list: Vec<u32>) -> Step {
        self.list = list;
        self.lists += 1;
        self.place = 0;
        match self.list.is_empty() {
            true => Step::Done,
            false => Step::Namespace,
        }
    }

    /// The namespace of the list that is being asked for.
    fn nsid(&self) -> u32 {
        self.list.get(self.place).copied().unwrap_or(0)
    }
}

/// The device's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    /// Status.
    pub status: Status,
    /// DW0.
    pub result: u32,
    /// The page.
    pub data: &'a [u8; PAGE_BYTES],
}
