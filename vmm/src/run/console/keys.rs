// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The meaning of keys: most go to the guest, some to the monitor.

/// The key that begins a command to the monitor: Ctrl-a.
const ESCAPE: u8 = 0x01;

/// What the commands do, for the user.
pub const HELP: &str = "\
pinvisor: Ctrl-a x       ends the guest
pinvisor: Ctrl-a Ctrl-a  sends Ctrl-a to the guest
pinvisor: Ctrl-a h       prints this
";

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Guest(u8),
    /// Nothing yet: a command begins.
    Begin,
    /// Ends the guest.
    Quit,
    /// Prints [`HELP`].
    Help,
}

/// Looks for commands among keys.
#[derive(Debug, Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// Takes the next byte from the keyboard.
    pub fn take(&mut self, byte: u8) -> Key {
        let escaped = std::mem::take(&mut self.escaped);
        match byte {
            b'x' if escaped => Key::Quit,
            b'h' if escaped => Key::Help,
            ESCAPE if !escaped => {
                self.escaped = true;
                Key::Begin
            }
            byte => Key::Guest(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        bytes.iter().map(|byte| keys.take(*byte)).collect()
    }

    #[test]
    fn commands_begin_with_ctrl_a_which_goes_through_when_typed_twice() {
        let guest = |byte| Key::Guest(byte);
        assert_eq!(
            taken(b"hx\x01x"),
            [guest(b'h'), guest(b'x'), Key::Begin, Key::Quit]
        );
        assert_eq!(
            taken(b"\x01\x01x\x01h"),
            [Key::Begin, guest(1), guest(b'x'), Key::Begin, Key::Help]
        );
        assert_eq!(taken(b"\x01yx"), [Key::Begin, guest(b'y'), guest(b'x')]);
    }
}
