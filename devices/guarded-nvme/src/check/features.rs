// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Set Features and Get Features: which features are allowed, and the length of their data.

use super::Bounce;
use super::admin::{Answer, Filter, Outcome, Rules, Verdict, to_device, to_host};
use crate::bits::{byte, join16, low16, upper16};
use crate::limits::Optional;
use crate::spec::admin::{
    FIRMWARE_NOTICES, GET_FEATURES, HEALTH_WARNINGS, NAMESPACE_NOTICES, SET_FEATURES, fid,
};
use crate::spec::{Cdw, DeviceCommand, Entry, Status};

const SAVE: u32 = 1 << 31;
/// Select: the capabilities of a feature, in DW0 and without data.
const CAPABILITIES: u8 = 3;
/// Capabilities: the feature can be changed.
const CHANGEABLE: u32 = 1 << 2;
const EXTENDED_HOST_ID: u32 = 1;

/// What a guest may do with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Set and read in the device: CDW11, no data.
    Passed,
    /// Set and read in the device, with this number of bytes of data.
    Data(u32, Filter),
    /// Number of Queues: the monitor's own.
    Queues,
    /// Asynchronous Event Configuration: the monitor's own for the guest.
    Events,
    /// Host Memory Buffer: always off.
    HostMemory,
}

fn kind(feature: u8, entry: &Entry, rules: &Rules<'_>) -> Option<Kind> {
    Some(match feature {
        fid::ARBITRATION
        | fid::POWER
        | fid::TEMPERATURE
        | fid::ERROR_RECOVERY
        | fid::WRITE_CACHE
        | fid::COALESCING
        | fid::VECTOR
        | fid::ATOMICITY
        | fid::KEEP_ALIVE
        | fid::THERMAL
        | fid::NON_OPERATIONAL => Kind::Passed,
        fid::QUEUES => Kind::Queues,
        fid::EVENTS => Kind::Events,
        fid::HOST_MEMORY => Kind::HostMemory,
        fid::TIMESTAMP if rules.limits.optional.has(Optional::TIMESTAMP) => {
            Kind::Data(8, Filter::Whole)
        }
        fid::HOST_BEHAVIOR => Kind::Data(512, Filter::HostBehavior),
        fid::HOST_ID if entry.cdw(Cdw::D11) & EXTENDED_HOST_ID != 0 => {
            Kind::Data(16, Filter::Whole)
        }
        fid::HOST_ID => Kind::Data(8, Filter::Whole),
        _ => return None,
    })
}

/// Whether the feature is on the list.
#[must_use]
pub fn is_offered(feature: u8) -> bool {
    matches!(
        feature,
        fid::ARBITRATION
            | fid::POWER
            | fid::TEMPERATURE
            | fid::ERROR_RECOVERY
            | fid::WRITE_CACHE
            | fid::QUEUES
            | fid::COALESCING
            | fid::VECTOR
            | fid::ATOMICITY
            | fid::EVENTS
            | fid::TIMESTAMP
            | fid::KEEP_ALIVE
            | fid::THERMAL
            | fid::NON_OPERATIONAL
            | fid::HOST_BEHAVIOR
            | fid::HOST_ID
    )
}

/// What becomes of a Set Features command.
///
/// # Errors
///
/// 0/02 for a feature or value that is not allowed, 1/0D where it is to be saved, 0/0C for the number of queues once there
/// is one, 0/0B for a namespace that is not there.
pub fn set(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let feature = byte(entry.cdw(Cdw::D10), 0);
    let kind = kind(feature, entry, rules).ok_or(Status::INVALID_FIELD)?;
    check_target(feature, entry, rules)?;
    if entry.cdw(Cdw::D10) & SAVE != 0 {
        return Err(Status::NOT_SAVEABLE);
    }
    let command = device_command(SET_FEATURES, entry);
    match kind {
        Kind::Passed => Ok(Verdict::Forward(command)),
        Kind::Data(bytes, filter) => {
            let payload = to_device(entry, bytes);
            Ok(Verdict::Bounce(Bounce { command, payload }, filter))
        }
        Kind::Queues => set_queues(entry, rules),
        Kind::Events => {
            let notices = rules.limits.notices & (NAMESPACE_NOTICES | FIRMWARE_NOTICES);
            let events = entry.cdw(Cdw::D11) & (HEALTH_WARNINGS | notices);
            // The monitor has to know when a namespace changes, whatever the guest wants.
            let command = command.with(Cdw::D11, events | notices & NAMESPACE_NOTICES);
            Ok(Verdict::SetEvents(command, events))
        }
        Kind::HostMemory => Err(Status::INVALID_FIELD),
    }
}

/// What becomes of a Get Features command.
///
/// # Errors
///
/// 0/02 for a feature that is not allowed, 0/0B for a namespace that is not there.
pub fn get(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let first = entry.cdw(Cdw::D10);
    let feature = byte(first, 0);
    let select = byte(first, 1) & 7;
    let kind = kind(feature, entry, rules).ok_or(Status::INVALID_FIELD)?;
    if select > CAPABILITIES {
        return Err(Status::INVALID_FIELD);
    }
    check_target(feature, entry, rules)?;
    let command = device_command(GET_FEATURES, entry)
        .with(Cdw::D10, u32::from(feature) | u32::from(select) << 8);
    let own = |value: u32, capabilities: u32| {
        let result = if select == CAPABILITIES {
            capabilities
        } else {
            value
        };
        Ok(Verdict::Complete(Outcome::success(result)))
    };
    match kind {
        Kind::Passed => Ok(Verdict::Forward(command)),
        Kind::Data(..) if select == CAPABILITIES => Ok(Verdict::Forward(command)),
        Kind::Data(bytes, filter) => {
            let payload = to_host(entry, bytes);
            Ok(Verdict::Bounce(Bounce { command, payload }, filter))
        }
        Kind::Queues => own(queue_counts(rules), CHANGEABLE),
        Kind::Events => own(rules.state.events, CHANGEABLE),
        Kind::HostMemory if select == CAPABILITIES => own(0, 0),
        Kind::HostMemory => Ok(Verdict::Answer(
            Answer::HostMemoryOff,
            to_host(entry, crate::bits::low32(crate::spec::PAGE)),
        )),
    }
}

/// The namespace and the vector that a feature is about have to be the guest's.
fn check_target(feature: u8, entry: &Entry, rules: &Rules<'_>) -> Result<(), Status> {
    if !rules.namespaces.allows(entry.nsid()) {
        return Err(Status::INVALID_NAMESPACE);
    }
    if feature == fid::VECTOR && entry.low(Cdw::D11) >= rules.limits.vectors {
        return Err(Status::INVALID_FIELD);
    }
    Ok(())
}

/// The command with its feature and CDW11, which are all that a feature of the list has.
fn device_command(opcode: u8, entry: &Entry) -> DeviceCommand {
    DeviceCommand::new(opcode, entry.nsid())
        .with(Cdw::D10, byte(entry.cdw(Cdw::D10), 0).into())
        .with(Cdw::D11, entry.cdw(Cdw::D11))
}

/// Number of Queues was set when the controller was enabled; the guest gets what there is.
fn set_queues(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let state = rules.state;
    if !(state.completion_queues.is_empty() && state.submission_queues.is_empty()) {
        return Err(Status::SEQUENCE_ERROR);
    }
    let asked = entry.cdw(Cdw::D11);
    if low16(asked) == u16::MAX || upper16(asked) == u16::MAX {
        return Err(Status::INVALID_FIELD);
    }
    Ok(Verdict::Complete(Outcome::success(queue_counts(rules))))
}

/// Both counts, 0's based.
fn queue_counts(rules: &Rules<'_>) -> u32 {
    let last = rules.limits.queues.saturating_sub(1);
    join16(last, last)
}
