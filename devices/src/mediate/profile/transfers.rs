// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the registers and limits of transfers.

use std::ops::RangeInclusive;

use super::direction::Direction;
use super::error::Invalid;
use super::format::{self, Otherwise, RefusalShown};
use super::problem::{Problem, check_name, number, problem};
use super::registers::Register;
use super::roles::{self, Role, Roles};
use super::transfer::{Addresses, Bits, Directed, Length, Transfer};

/// A problem with a key of the transfer that is being checked.
type Checked<T> = Result<T, (&'static str, Invalid)>;

pub(super) fn check(
    transfers: Vec<format::Transfer>,
    refusal: RefusalShown,
    registers: &mut [Register],
) -> Result<Vec<Transfer>, Problem> {
    let mut roles = Roles::new(registers);
    let mut checked: Vec<Transfer> = Vec::new();
    for (index, transfer) in transfers.into_iter().enumerate() {
        let name = transfer.name.clone();
        let key = |key| format!("transfer {name:?}: {key}");
        check_name(&name).map_err(|reason| problem(key("name"), reason))?;
        if checked.iter().any(|other| other.name == name) {
            return Err(problem(key("name"), Invalid::Duplicate));
        }
        roles.transfer = index;
        let transfer = check_transfer(transfer, refusal, &mut roles);
        checked.push(transfer.map_err(|(at, reason)| problem(key(at), reason))?);
    }
    let taken = roles.taken;
    roles::settle(registers, &taken, &checked)?;
    Ok(checked)
}

fn check_transfer(
    transfer: format::Transfer,
    refusal: RefusalShown,
    roles: &mut Roles<'_>,
) -> Checked<Transfer> {
    let at = |key| move |reason| (key, reason);
    let start = &transfer.start;
    let bits = format::Bits {
        register: start.register.clone(),
        mask: start.mask,
        value: start.value,
    };
    let otherwise = start.otherwise;
    let start = roles.bits(&bits, Role::Start).map_err(at("start"))?;
    check_stores(&roles.registers[start.register], start.mask, otherwise).map_err(at("start"))?;
    let directed = check_direction(&transfer.direction, roles).map_err(at("direction"))?;
    let addresses = check_addresses(&transfer, directed, roles)?;
    let length = check_length(&transfer.length, roles).map_err(at("length"))?;
    let busy = check_busy(&transfer, roles)?;
    let status = match (&transfer.status, refusal) {
        (None, _) => start.register,
        (Some(name), RefusalShown::AllOnes) => {
            roles.take(name, Role::Status).map_err(at("status"))?
        }
        (Some(_), _) => {
            let reason = Invalid::Combination("only with refusal = \"all-ones\"");
            return Err(("status", reason));
        }
    };
    check_limits(&transfer)?;
    Ok(Transfer {
        addresses,
        directed,
        length,
        start,
        otherwise,
        busy,
        status,
        programmed: roles.programmed(),
        max_length: transfer.max_length,
        address_mask: check_mask(&transfer, addresses, directed, roles)?,
        alignment: transfer.alignment,
        boundary: transfer.boundary,
        window: check_window(&transfer, addresses, directed)?,
        name: transfer.name,
    })
}

/// The device acts on each store by itself: one that starts a transfer must not come before another
/// that describes the transfer.
fn check_stores(register: &Register, mask: u64, otherwise: Otherwise) -> Result<(), Invalid> {
    let stores = register.stores();
    let rule = if stores == 1 {
        return Ok(());
    } else if mask == 0 {
        "mask = 0 starts with each store, so it needs a register that is written in one"
    } else if otherwise == Otherwise::Pass {
        "otherwise = \"pass\" needs a register that is written in one"
    } else if mask & !register.last_store() != 0 {
        "all bits of the start mask must be in the last one, or the device starts before it has \
         the rest"
    } else {
        return Ok(());
    };
    let name = register.name.clone();
    Err(Invalid::Stores { name, stores, rule })
}

fn check_direction(
    direction: &format::Direction,
    roles: &mut Roles<'_>,
) -> Result<Directed, Invalid> {
    match direction {
        format::Direction {
            fixed: Some(fixed),
            register: None,
            mask: None,
            to_memory: None,
            from_memory: None,
        } => Ok(Directed::Fixed(*fixed)),
        format::Direction {
            fixed: None,
            register: Some(name),
            mask: Some(mask),
            to_memory: Some(to_memory),
            from_memory: Some(from_memory),
        } => {
            let register = roles.take(name, Role::Parameter)?;
            let (mask, to_memory, from_memory) = (*mask, *to_memory, *from_memory);
            roles.check_bits(register, mask, &[to_memory, from_memory])?;
            let differ = to_memory != from_memory;
            number(
                differ,
                to_memory,
                "different values of to_memory and from_memory",
            )?;
            Ok(Directed::Bits {
                register,
                mask,
                to_memory,
                from_memory,
            })
        }
        _ => Err(Invalid::Combination(
            "either fixed, or register with mask, to_memory and from_memory",
        )),
    }
}

fn check_addresses(
    transfer: &format::Transfer,
    directed: Directed,
    roles: &mut Roles<'_>,
) -> Checked<Addresses> {
    let copies = matches!(directed, Directed::Fixed(Direction::MemoryToMemory));
    let mut take = |key, name: &str| roles.take(name, Role::Address).map_err(|e| (key, e));
    let names = (
        &transfer.source,
        &transfer.destination,
        &transfer.memory,
        &transfer.device,
    );
    match names {
        (Some(source), Some(destination), None, None) => Ok(Addresses::Ends {
            source: take("source", source)?,
            destination: take("destination", destination)?,
        }),
        (None, None, Some(memory), device) if !copies => Ok(Addresses::Sides {
            memory: take("memory", memory)?,
            device: match device {
                Some(device) => Some(take("device", device)?),
                None => None,
            },
        }),
        _ => Err((
            "source",
            Invalid::Combination(
                "either source and destination, or memory and perhaps device, which does not \
                 go with memory-to-memory",
            ),
        )),
    }
}

fn check_length(length: &format::Length, roles: &mut Roles<'_>) -> Result<Length, Invalid> {
    match (&length.register, length.fixed, length.mask) {
        (None, Some(fixed), None) if length.unit == 1 && length.bias == 0 => {
            number(fixed != 0, fixed, "at least 1")?;
            Ok(Length::Fixed(fixed))
        }
        (Some(name), None, mask) => {
            let register = roles.take(name, Role::Parameter)?;
            let mask = mask.unwrap_or(roles.registers[register].bits());
            number(mask != 0, mask, "a mask of at least one bit")?;
            roles.check_bits(register, mask, &[])?;
            number(length.unit != 0, 0, "a unit of at least 1")?;
            Ok(Length::Bits {
                register,
                mask,
                unit: length.unit,
                bias: length.bias,
            })
        }
        _ => Err(Invalid::Combination(
            "either fixed alone, or register and perhaps mask, unit and bias",
        )),
    }
}

fn check_busy(transfer: &format::Transfer, roles: &mut Roles<'_>) -> Checked<Option<Bits>> {
    match (&transfer.busy, transfer.latched_at_start) {
        (Some(bits), false) => {
            let busy = roles.bits(bits, Role::Status).map_err(|e| ("busy", e))?;
            number(busy.mask != 0, 0, "a mask of at least one bit").map_err(|e| ("busy", e))?;
            Ok(Some(busy))
        }
        (None, true) => Ok(None),
        _ => Err((
            "busy",
            Invalid::Combination(
                "a device that reads its registers during a transfer requires a busy bit; for \
                 others set latched_at_start = true",
            ),
        )),
    }
}

fn check_limits(transfer: &format::Transfer) -> Checked<()> {
    let (length, alignment) = (transfer.max_length, transfer.alignment);
    number(length != 0, 0, "at least 1").map_err(|e| ("max_length", e))?;
    // Rounding an address down within a page cannot lead out of the guest's memory.
    let fits = alignment.is_power_of_two() && alignment <= 4096;
    number(fits, alignment, "a power of two, at most 4096").map_err(|e| ("alignment", e))?;
    if let Some(boundary) = transfer.boundary {
        let fits = boundary.is_power_of_two() && boundary >= alignment;
        number(fits, boundary, "a power of two, at least the alignment")
            .map_err(|e| ("boundary", e))?;
    }
    Ok(())
}

/// The mask of addresses, which each register that takes one has to hold.
fn check_mask(
    transfer: &format::Transfer,
    addresses: Addresses,
    directed: Directed,
    roles: &Roles<'_>,
) -> Checked<u64> {
    let in_memory = match (addresses, directed) {
        (Addresses::Sides { memory, .. }, _) => [Some(memory), None],
        (Addresses::Ends { destination, .. }, Directed::Fixed(Direction::ToMemory)) => {
            [Some(destination), None]
        }
        (Addresses::Ends { source, .. }, Directed::Fixed(Direction::FromMemory)) => {
            [Some(source), None]
        }
        (
            Addresses::Ends {
                source,
                destination,
            },
            _,
        ) => [Some(source), Some(destination)],
    };
    let widths = in_memory
        .iter()
        .flatten()
        .map(|at| roles.registers[*at].width);
    let bits = 8 * widths.min().unwrap_or(8);
    let found = transfer.address_bits;
    number(
        (1..=bits).contains(&found),
        found.into(),
        "1 to the bits of the address registers",
    )
    .map_err(|e| ("address_bits", e))?;
    Ok(u64::MAX >> (64 - u32::from(found)))
}

fn check_window(
    transfer: &format::Transfer,
    addresses: Addresses,
    directed: Directed,
) -> Checked<Option<RangeInclusive<u64>>> {
    let has_device_side = match addresses {
        Addresses::Sides { device, .. } => device.is_some(),
        Addresses::Ends { .. } => !matches!(directed, Directed::Fixed(Direction::MemoryToMemory)),
    };
    let Some(window) = transfer.window.filter(|_| has_device_side) else {
        let wrong = transfer.window.is_some() || has_device_side;
        let reason = "required if, and only if, a register holds an address in the device";
        return if wrong {
            Err(("window", Invalid::Combination(reason)))
        } else {
            Ok(None)
        };
    };
    let last = window.length.checked_sub(1);
    let last = last.and_then(|rest| window.start.checked_add(rest));
    let Some(last) = last else {
        let expected = "at least 1, with an end below 2^64";
        let found = window.length;
        return Err(("window", Invalid::Number { found, expected }));
    };
    Ok(Some(window.start..=last))
}
