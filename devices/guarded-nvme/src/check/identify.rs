// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Identify: which structures (CNS) are allowed. Each has 4096 bytes.

use super::Bounce;
use super::admin::{Answer, Filter, Rules, Verdict, to_host};
use crate::bits::byte;
use crate::spec::admin::{IDENTIFY, cns};
use crate::spec::identify::NVM_COMMAND_SET;
use crate::spec::{ALL_NAMESPACES, Cdw, DeviceCommand, Entry, Status};

const BYTES: u32 = 4096;

/// What becomes of an Identify command.
///
/// # Errors
///
/// 0/02 for a structure that is not allowed or not of the NVM command set, 0/0B for a namespace that is not there.
pub fn check(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let structure = byte(entry.cdw(Cdw::D10), 0);
    match structure {
        cns::CONTROLLER => Ok(forward(entry, 0, Filter::Controller)),
        cns::NAMESPACE => Ok(namespace(entry, rules, Filter::Namespace)),
        cns::INDEPENDENT_NAMESPACE => Ok(namespace(entry, rules, Filter::IndependentNamespace)),
        cns::SPECIFIC_NAMESPACE => {
            needs_nvm(entry)?;
            Ok(namespace(entry, rules, Filter::SpecificNamespace))
        }
        cns::SPECIFIC_CONTROLLER => {
            needs_nvm(entry)?;
            Ok(forward(entry, 0, Filter::SpecificController))
        }
        cns::DESCRIPTORS => {
            let known = rules.namespaces.get(entry.nsid());
            let nsid = known.ok_or(Status::INVALID_NAMESPACE)?.nsid;
            Ok(forward(entry, nsid, Filter::Descriptors))
        }
        cns::ACTIVE_NAMESPACES if entry.nsid() >= ALL_NAMESPACES - 1 => {
            Err(Status::INVALID_NAMESPACE)
        }
        cns::ACTIVE_NAMESPACES => Ok(answer(entry, Answer::ActiveNamespaces(entry.nsid()))),
        cns::COMMAND_SETS => Ok(answer(entry, Answer::CommandSets)),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// CSI in CDW11 31:24 must be the NVM command set's.
fn needs_nvm(entry: &Entry) -> Result<(), Status> {
    if byte(entry.cdw(Cdw::D11), 3) == NVM_COMMAND_SET {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD)
    }
}

/// A structure of a namespace: of one that is not shown it is zeros, as of one that is not active.
fn namespace(entry: &Entry, rules: &Rules<'_>, filter: Filter) -> Verdict {
    match entry.nsid() {
        nsid if nsid == ALL_NAMESPACES || rules.namespaces.get(nsid).is_some() => {
            forward(entry, nsid, filter)
        }
        _ => answer(entry, Answer::InactiveNamespace),
    }
}

fn forward(entry: &Entry, nsid: u32, filter: Filter) -> Verdict {
    let structure = u32::from(byte(entry.cdw(Cdw::D10), 0));
    let command = DeviceCommand::new(IDENTIFY, nsid).with(Cdw::D10, structure);
    let payload = to_host(entry, BYTES);
    Verdict::Bounce(Bounce { command, payload }, filter)
}

fn answer(entry: &Entry, answer: Answer) -> Verdict {
    Verdict::Answer(answer, to_host(entry, BYTES))
}
