// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The commands that the device has, by the monitor's identifiers.

/// A table of outstanding commands: the index is the command's identifier for the device.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Box<[Slot<T>]>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Slot<T> {
    /// The command, until it completes.
    command: Option<T>,
    /// Abort commands that name it and are outstanding themselves: another command must not have the identifier yet.
    aborts: u8,
}

impl<T> Slots<T> {
    /// A table for this number of commands.
    pub fn new(count: u16) -> Self {
        let empty = || Slot {
            command: None,
            aborts: 0,
        };
        Self {
            slots: (0..count).map(|_| empty()).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// An identifier that is free, without taking it.
    pub fn peek(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Gives a command the identifier that [`peek`](Self::peek) named.
    pub fn take(&mut self, command: T) -> Option<u16> {
        let id = self.free.pop()?;
        self.slots[usize::from(id)].command = Some(command);
        Some(id)
    }

    /// The command, now that it completes; `None` if there is none of this identifier.
    pub fn complete(&mut self, id: u16) -> Option<T> {
        let slot = self.slots.get_mut(usize::from(id))?;
        let command = slot.command.take()?;
        if slot.aborts == 0 {
            self.free.push(id);
        }
        Some(command)
    }

    /// The first outstanding command that is looked for.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<u16> {
        let is_it = |slot: &Slot<T>| slot.command.as_ref().is_some_and(&is_it);
        let place = self.slots.iter().position(is_it)?;
        u16::try_from(place).ok()
    }

    /// An Abort names this outstanding command. `false` if too many do.
    pub fn name(&mut self, id: u16) -> bool {
        let slot = self.slots.get_mut(usize::from(id));
        let aborts = slot.and_then(|slot| Some((slot.aborts.checked_add(1)?, slot)));
        match aborts {
            Some((count, slot)) => slot.aborts = count,
            None => return false,
        }
        true
    }

    /// An Abort that named this command has completed.
    pub fn unname(&mut self, id: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else {
            return;
        };
        if slot.aborts == 1 && slot.command.is_none() {
            self.free.push(id);
        }
        slot.aborts = slot.aborts.saturating_sub(1);
    }

    /// Whether no command is outstanding.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.command.is_none())
    }

    /// How many commands are outstanding that are looked for.
    pub fn count(&self, is_it: impl Fn(&T) -> bool) -> usize {
        let commands = self.slots.iter().filter_map(|slot| slot.command.as_ref());
        commands.filter(|command| is_it(command)).count()
    }

    /// Forgets all Aborts and commands. The device has none of them any more.
    pub fn clear(&mut self) {
        self.free.clear();
        for (id, slot) in (0..).zip(&mut self.slots) {
            *slot = Slot {
                command: None,
                aborts: 0,
            };
            // There is room for all from the start.
            self.free.push(id);
        }
        self.free.reverse();
    }

    /// Takes the outstanding commands out, the device having none of them any more.
    pub fn drain(&mut self, mut each: impl FnMut(T)) {
        for id in 0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX) {
            if let Some(command) = self.complete(id) {
                each(command);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_of_one_command_at_a_time() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.peek(), Some(0));
        assert_eq!(slots.take('a'), Some(0));
        assert_eq!(slots.take('b'), Some(1));
        assert_eq!((slots.take('c'), slots.peek()), (None, None));
        assert_eq!(slots.find(|command| *command == 'b'), Some(1));
        assert_eq!(slots.complete(0), Some('a'));
        assert_eq!(slots.complete(0), None, "completed twice");
        assert_eq!(slots.complete(9), None);
        assert_eq!(slots.take('d'), Some(0));
    }

    #[test]
    fn an_identifier_that_an_abort_names_is_not_given_again() {
        let mut slots = Slots::new(1);
        slots.take('a');
        assert!(slots.name(0) && slots.name(0));
        assert_eq!(slots.complete(0), Some('a'));
        assert_eq!(slots.take('b'), None);
        slots.unname(0);
        assert_eq!(slots.take('b'), None);
        slots.unname(0);
        assert_eq!(slots.take('b'), Some(0));
        assert!(slots.name(0));
        slots.unname(0);
        assert_eq!(slots.take('c'), None, "it is still out");
        assert_eq!(slots.complete(0), Some('b'));
        assert_eq!(slots.take('c'), Some(0));
        assert!(!slots.name(7));
        slots.unname(7);
    }

    #[test]
    fn all_are_free_after_the_device_has_forgotten_them() {
        let mut slots = Slots::new(3);
        slots.take('a');
        slots.take('b');
        slots.name(1);
        let mut left = Vec::new();
        slots.drain(|command| left.push(command));
        assert_eq!(left, ['a', 'b']);
        assert!(slots.is_empty());
        slots.clear();
        let ids: Vec<_> = (0..4).map(|_| slots.take('x')).collect();
        assert_eq!(ids, [Some(0), Some(1), Some(2), None]);
    }
}
