// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device is like.

use super::Inner;

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelNamespace {
    /// Its identifier.
    pub nsid: u32,
    /// 2 to the power of this bytes per block.
    pub block_shift: u8,
    /// Bytes of metadata per block.
    pub metadata: u16,
    /// Its command set.
    pub command_set: u8,
}

impl ModelNamespace {
    /// A namespace with plain blocks of 2^`block_shift` bytes.
    #[must_use]
    pub const fn plain(nsid: u32, block_shift: u8) -> Self {
        Self {
            nsid,
            block_shift,
            metadata: 0,
            command_set: 0,
        }
    }
}

/// A device's features.
#[derive(Clone, Debug)]
pub struct Personality {
    /// CAP.MQES.
    pub last_entry: u16,
    /// Other bits of CAP.
    pub cap: u64,
    /// VS.
    pub version: u32,
    /// MDTS.
    pub mdts: u8,
    /// AERL.
    pub aerl: u8,
    /// I/O queue pairs that it gives.
    pub queues: u16,
    /// The controllers of its subsystem; its own is 7. `None` if it does not say.
    pub controllers: Option<Vec<u16>>,
    /// CMIC.
    pub cmic: u8,
    /// What fills Identify Controller where nothing else is said.
    pub fill: u8,
    /// Its namespaces.
    pub namespaces: Vec<ModelNamespace>,
}

impl Default for Personality {
    /// A plain device: like QEMU's, with two namespaces.
    fn default() -> Self {
        Self {
            last_entry: 2047,
            // CQR, TO 15 s, DSTRD 0, CSS: NVM.
            cap: 1 << 16 | 30 << 24 | 1 << 37,
            version: 0x0001_0400,
            mdts: 7,
            aerl: 3,
            queues: 64,
            controllers: Some(vec![7]),
            cmic: 0,
            fill: 0,
            namespaces: vec![ModelNamespace::plain(1, 9), ModelNamespace::plain(2, 12)],
        }
    }
}

impl Personality {
    /// A device that has everything that a guest must not see, and namespaces of all kinds.
    #[must_use]
    pub fn rich() -> Self {
        let metadata = ModelNamespace {
            metadata: 8,
            ..ModelNamespace::plain(3, 9)
        };
        let zoned = ModelNamespace {
            command_set: 2,
            ..ModelNamespace::plain(4, 12)
        };
        Self {
            // CSS bit 6, BPS, CMBS, PMRS, NSSRS, CRMS.
            cap: Self::default().cap | 1 << 36 | 1 << 43 | 1 << 45 | 1 << 56 | 1 << 57 | 3 << 59,
            version: 0x0003_0000,
            mdts: 0,
            cmic: 2,
            fill: 0xff,
            namespaces: vec![
                ModelNamespace::plain(1, 9),
                ModelNamespace::plain(2, 12),
                metadata,
                zoned,
                ModelNamespace::plain(9, 16),
            ],
            ..Self::default()
        }
    }

    /// CAP.
    #[must_use]
    pub fn cap(&self) -> u64 {
        self.cap | u64::from(self.last_entry)
    }
}

impl Inner {
    pub(super) fn namespace(&self, nsid: u32) -> Option<ModelNamespace> {
        let all = &self.personality.namespaces;
        all.iter().copied().find(|known| known.nsid == nsid)
    }

    /// Puts a namespace in the place of another, or adds it.
    pub(super) fn change_namespace(&mut self, namespace: ModelNamespace) {
        let all = &mut self.personality.namespaces;
        all.retain(|known| known.nsid != namespace.nsid);
        all.push(namespace);
        all.sort_by_key(|known| known.nsid);
        self.changed.push(namespace.nsid);
        self.changed.sort_unstable();
        self.changed.dedup();
        self.report(0x04_0002);
    }
}
