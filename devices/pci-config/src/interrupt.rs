// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of interrupt that a function can have, and what config space says of each. This is the owner of these
//! facts: everything else asks here, or goes through [`InterruptKind::ALL`].

use core::fmt;
use core::ops::{Index, IndexMut};

use crate::capability::{Capability, capabilities};
use crate::message::{MsiControl, MsixControl};
use crate::read::word;
use crate::regs::{CAP_MSI, CAP_MSIX, INTERRUPT_PIN, MSI_CONTROL};

/// The kind of interrupt a function delivers. At most one is in use at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterruptKind {
    /// Level-triggered line.
    Intx,
    /// Message-signalled, capability 0x05.
    Msi,
    /// Message-signalled with a table, capability 0x11.
    Msix,
}

impl InterruptKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Intx, Self::Msi, Self::Msix];

    /// What the specifications call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
        }
    }

    /// The ID of its capability, which has Message Control at [`MSI_CONTROL`]; `None` if it has none.
    #[must_use]
    pub const fn capability(self) -> Option<u8> {
        match self {
            Self::Intx => None,
            Self::Msi => Some(CAP_MSI),
            Self::Msix => Some(CAP_MSIX),
        }
    }

    /// Whether its vectors are messages, which a guest programs by a capability; otherwise it is a line.
    #[must_use]
    pub const fn is_message(self) -> bool {
        self.capability().is_some()
    }

    /// The kind whose capability has this ID in the first 256 bytes.
    #[must_use]
    pub fn of_capability(id: u16) -> Option<Self> {
        let has = |kind: &Self| kind.capability().is_some_and(|own| u16::from(own) == id);
        Self::ALL.into_iter().find(has)
    }

    /// The vectors that a function with this `control`, its Message Control, has; 1 for a line.
    #[must_use]
    pub fn vectors(self, control: u16) -> u16 {
        match self {
            Self::Intx => 1,
            Self::Msi => 1 << MsiControl(control).capable(),
            Self::Msix => MsixControl(control).vectors(),
        }
    }
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The vectors of each kind that a function has, as its config space says.
#[must_use]
pub fn interrupt_vectors(config: &[u8]) -> PerKind<u16> {
    let mut vectors = PerKind::default();
    if config
        .get(usize::from(INTERRUPT_PIN))
        .is_some_and(|pin| *pin != 0)
    {
        vectors[InterruptKind::Intx] = 1;
    }
    for Ok(Capability { id, offset, .. }) in capabilities(config) {
        if let Some(kind) = InterruptKind::of_capability(id)
            && let Some(control) = word(config, offset + MSI_CONTROL)
        {
            vectors[kind] = kind.vectors(control);
        }
    }
    vectors
}

/// One `T` for each kind of interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T>([T; InterruptKind::ALL.len()]);

impl<T> PerKind<T> {
    /// What `value` returns for each kind.
    #[must_use]
    pub fn from_fn(value: impl FnMut(InterruptKind) -> T) -> Self {
        Self(InterruptKind::ALL.map(value))
    }

    /// Each kind and what it has, in the order of [`InterruptKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (InterruptKind, &T)> {
        InterruptKind::ALL.into_iter().zip(&self.0)
    }
}

/// Kinds that are left out have the default.
impl<T: Default> FromIterator<(InterruptKind, T)> for PerKind<T> {
    fn from_iter<I: IntoIterator<Item = (InterruptKind, T)>>(pairs: I) -> Self {
        let mut all = Self::from_fn(|_| T::default());
        for (kind, value) in pairs {
            all[kind] = value;
        }
        all
    }
}

impl<T> Index<InterruptKind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: InterruptKind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<InterruptKind> for PerKind<T> {
    fn index_mut(&mut self, kind: InterruptKind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place_name_and_capability() {
        let places = PerKind::from_fn(|kind| kind);
        for (index, kind) in InterruptKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(places[kind], kind);
            let others = InterruptKind::ALL
                .into_iter()
                .filter(|other| *other != kind);
            for other in others {
                assert_ne!(kind.name(), other.name());
                assert_ne!(kind.capability(), other.capability());
            }
            if let Some(id) = kind.capability() {
                assert_eq!(InterruptKind::of_capability(id.into()), Some(kind));
            }
        }
        assert_eq!(InterruptKind::of_capability(0x105), None);
        let some: PerKind<u16> = [(InterruptKind::Msi, 4)].into_iter().collect();
        assert!(
            some.iter()
                .all(|(kind, count)| *count == if kind == InterruptKind::Msi { 4 } else { 0 })
        );
    }

    #[test]
    fn vectors_are_counted_by_pin_and_message_control() {
        let mut config = [0; 256];
        (config[0x06], config[0x34], config[0x3d]) = (0x10, 0x40, 1);
        config[0x40..0x44].copy_from_slice(&[CAP_MSI, 0x50, 0x0a, 0]);
        config[0x50..0x54].copy_from_slice(&[CAP_MSIX, 0, 0x40, 0]);
        assert_eq!(interrupt_vectors(&config), PerKind([1, 32, 65]));
        assert_eq!(interrupt_vectors(&config[..64]), PerKind([1, 0, 0]));
        assert_eq!(interrupt_vectors(&[]), PerKind::default());
    }
}
