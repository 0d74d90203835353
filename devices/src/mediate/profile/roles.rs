// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each register is used for, and which of its bits a device gets.

use super::error::Invalid;
use super::format::{self, Reserved};
use super::problem::{Problem, number, problem};
use super::registers::{Kind, RUN, Register};
use super::transfer::{Bits, Directed, Length, Transfer};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Address,
    Parameter,
    Start,
    Status,
}

/// Users of each register.
pub(super) struct Roles<'a> {
    pub registers: &'a [Register],
    pub taken: Vec<Option<(usize, Role)>>,
    /// The transfer that is being checked.
    pub transfer: usize,
}

impl<'a> Roles<'a> {
    pub fn new(registers: &'a [Register]) -> Self {
        Self {
            registers,
            taken: vec![None; registers.len()],
            transfer: 0,
        }
    }

    /// The registers that the device gets before the transfer's start, in the file's order. Those of a run
    /// [follow each other](Register::precedes).
    pub fn programmed(&self) -> Vec<Vec<usize>> {
        let mine = |place: &usize| match self.taken[*place] {
            Some((owner, Role::Address | Role::Parameter)) => owner == self.transfer,
            _ => false,
        };
        let mine: Vec<usize> = (0..self.registers.len()).filter(mine).collect();
        let runs =
            mine.chunk_by(|place, next| self.registers[*place].precedes(&self.registers[*next]));
        runs.flat_map(|run| run.chunks(RUN))
            .map(<[usize]>::to_vec)
            .collect()
    }

    /// The register `name`, in `role` from now on.
    pub fn take(&mut self, name: &str, role: Role) -> Result<usize, Invalid> {
        let place = self
            .registers
            .iter()
            .position(|register| register.name == name);
        let Some(place) = place else {
            let name = name.to_owned();
            return Err(Invalid::NoRegister { name });
        };
        let role = match self.taken[place] {
            None => role,
            Some((transfer, taken)) if transfer == self.transfer => match (taken, role) {
                (Role::Parameter, Role::Parameter) => Role::Parameter,
                (Role::Start, Role::Parameter | Role::Status) => Role::Start,
                (Role::Status, Role::Status) => Role::Status,
                _ => return Err(self.conflict(place)),
            },
            Some(_) => return Err(self.conflict(place)),
        };
        self.taken[place] = Some((self.transfer, role));
        Ok(place)
    }

    fn conflict(&self, place: usize) -> Invalid {
        let name = self.registers[place].name.clone();
        Invalid::Role { name }
    }

    /// `bits` of a register, in `role` from now on.
    pub fn bits(&mut self, bits: &format::Bits, role: Role) -> Result<Bits, Invalid> {
        let register = self.take(&bits.register, role)?;
        self.check_bits(register, bits.mask, &[bits.value])?;
        let (mask, value) = (bits.mask, bits.value);
        Ok(Bits {
            register,
            mask,
            value,
        })
    }

    /// `mask` is of bits that the register has, and `values` have no others.
    pub fn check_bits(&self, register: usize, mask: u64, values: &[u64]) -> Result<(), Invalid> {
        let bits = self.registers[register].bits();
        number(
            mask & !bits == 0,
            mask,
            "a mask of bits that the register has",
        )?;
        for value in values {
            number(value & !mask == 0, *value, "a value within the mask")?;
        }
        Ok(())
    }
}

/// Gives each register its role.
pub(super) fn settle(
    registers: &mut [Register],
    taken: &[Option<(usize, Role)>],
    transfers: &[Transfer],
) -> Result<(), Problem> {
    for (place, (register, taken)) in registers.iter_mut().zip(taken).enumerate() {
        let key = format!("register {:?}", register.name);
        let Some((number, role)) = taken else {
            return Err(problem(key, Invalid::Unused));
        };
        register.transfer = *number;
        register.kind = match role {
            Role::Address | Role::Parameter => Kind::Shadow,
            Role::Start => Kind::Start,
            Role::Status => Kind::Status,
        };
        let transfer = &transfers[*number];
        register.passed = passed(place, register, *role, transfer)
            .map_err(|(at, reason)| problem(format!("{key}: {at}"), reason))?;
    }
    Ok(())
}

/// The bits of the register at `place` that are not zero in each store to the device.
fn passed(
    place: usize,
    register: &Register,
    role: Role,
    transfer: &Transfer,
) -> Result<u64, (&'static str, Invalid)> {
    if register.read_back && register.kind != Kind::Shadow {
        let reason = "only for a register that the device gets before the start";
        return Err(("read_back", Invalid::Combination(reason)));
    }
    let own = |bits: Option<Bits>| bits.filter(|bits| bits.register == place);
    let busy = own(transfer.busy).map_or(0, |busy| busy.mask);
    // A device could take a store of its busy bits for an order to change them.
    let others = register.bits() & !busy;
    let writable = register.writable.unwrap_or(0);
    let expected = "bits of the register that busy does not name";
    number(writable & !others == 0, writable, expected).map_err(|e| ("writable", e))?;
    let named = match role {
        Role::Address if register.writable.is_some() || register.reserved.is_some() => {
            let key = if register.writable.is_some() {
                "writable"
            } else {
                "reserved"
            };
            let reason = "not for an address register, of which no bit is without meaning";
            return Err((key, Invalid::Combination(reason)));
        }
        Role::Address => register.bits(),
        Role::Status if register.reserved.is_some() => {
            let reason = "not for a register of busy or status, whose writable bits are named";
            return Err(("reserved", Invalid::Combination(reason)));
        }
        Role::Status => 0,
        Role::Parameter | Role::Start => transfer.named(place),
    };
    Ok(named
        | match register.reserved {
            None | Some(Reserved::Zero) => writable,
            Some(Reserved::Pass) => others,
        })
}

impl Transfer {
    /// The bits of a register that start the transfer, or are its length or direction.
    fn named(&self, place: usize) -> u64 {
        let direction = match self.directed {
            Directed::Bits { register, mask, .. } if register == place => mask,
            _ => 0,
        };
        let length = match self.length {
            Length::Bits { register, mask, .. } if register == place => mask,
            _ => 0,
        };
        let start = if self.start.register == place {
            self.start.mask
        } else {
            0
        };
        direction | length | start
    }
}

#[cfg(test)]
mod tests {
    use crate::mediate::profile::{ON_REQUEST, Profile};

    #[test]
    fn registers_that_follow_each_other_are_programmed_at_once() {
        let (_, text) = ON_REQUEST[0];
        let runs = |text: &str| {
            let profile = Profile::parse("runs", text).unwrap();
            profile.transfers[0].programmed.clone()
        };
        assert_eq!(runs(text), [vec![0, 1, 2]]);
        // The count is not read back, or elsewhere.
        let (others, count) = text.split_at(text.find("name = \"count\"").unwrap());
        let text_with = |from, to| format!("{others}{}", count.replacen(from, to, 1));
        for (from, to) in [
            ("read_back = true", "read_back = false"),
            ("offset = 0x90", "offset = 0xa0"),
        ] {
            assert_eq!(runs(&text_with(from, to)), [vec![0, 1], vec![2]], "{to}");
        }
        // None takes one store of 8 bytes.
        let (mine, command) = text.split_at(text.find("name = \"command\"").unwrap());
        let mine = mine
            .replace("partial = \"replace\"", "partial = \"merge\"\nstore = 4")
            .replace("read_back = true", "");
        let narrow = format!("{mine}{command}");
        assert_eq!(runs(&narrow), [vec![0], vec![1], vec![2]]);
    }
}
