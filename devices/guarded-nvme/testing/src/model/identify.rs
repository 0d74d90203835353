// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device says of itself.

use super::Inner;
use super::personality::ModelNamespace;

pub(super) type Page = [u8; 4096];

fn put(page: &mut Page, at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Inner {
    pub(super) fn identify_controller(&self) -> Page {
        let mut page = [self.personality.fill; 4096];
        put(&mut page, 4, b"MODEL-0001          ");
        page[76] = self.personality.cmic;
        page[77] = self.personality.mdts;
        put(&mut page, 78, &7_u16.to_le_bytes());
        put(&mut page, 80, &self.personality.version.to_le_bytes());
        put(&mut page, 92, &0x300_u32.to_le_bytes());
        page[111] = 1;
        page[259] = self.personality.aerl;
        page[261] = 7;
        put(&mut page, 320, &[0, 0]);
        put(&mut page, 512, &[0x66, 0x44]);
        put(&mut page, 516, &1024_u32.to_le_bytes());
        put(&mut page, 520, &0x1ff_u16.to_le_bytes());
        page
    }

    pub(super) fn identify_namespace(&self, namespace: ModelNamespace) -> Page {
        let mut page = [0; 4096];
        put(&mut page, 0, &0x10_0000_u64.to_le_bytes());
        // Format 1 of 2.
        page[25] = 1;
        page[26] = 1;
        page[30] = self.personality.fill;
        page[31] = self.personality.fill;
        put(&mut page, 132, &namespace.metadata.to_le_bytes());
        page[134] = namespace.block_shift;
        page[4095] = self.personality.fill;
        page
    }

    pub(super) fn active_namespaces(&self, after: u32) -> Page {
        let mut page = [0; 4096];
        let all = &self.personality.namespaces;
        let ids = all.iter().map(|known| known.nsid).filter(|id| *id > after);
        for (place, id) in (0..4096).step_by(4).zip(ids) {
            put(&mut page, place, &id.to_le_bytes());
        }
        page
    }

    pub(super) fn controllers(&self) -> Option<Page> {
        let mut page = [0; 4096];
        let ids = self.personality.controllers.as_ref()?;
        page[0] = u8::try_from(ids.len()).expect("few controllers");
        for (place, id) in (2..).step_by(2).zip(ids) {
            put(&mut page, place, &id.to_le_bytes());
        }
        Some(page)
    }

    pub(super) fn descriptors(namespace: ModelNamespace) -> Page {
        let mut page = [0; 4096];
        put(&mut page, 0, &[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        put(&mut page, 12, &[4, 1, 0, 0, namespace.command_set]);
        page
    }
}
