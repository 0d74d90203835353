// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data of admin commands that the monitor makes itself.

use super::session::Session;
use crate::bits::put32;
use crate::check::Answer;
use crate::spec::PAGE_BYTES;

/// The first page of an answer; zeros follow it.
pub(crate) fn page(answer: Answer, session: &Session) -> [u8; PAGE_BYTES] {
    let mut data = [0; PAGE_BYTES];
    match answer {
        Answer::ActiveNamespaces(after) => {
            let shown = session.namespaces.shown().iter();
            let next = shown.filter(|namespace| namespace.nsid > after);
            for (place, namespace) in (0..PAGE_BYTES).step_by(4).zip(next) {
                put32(&mut data, place, namespace.nsid);
            }
        }
        // One combination, of the NVM command set alone.
        Answer::CommandSets => data[0] = 1,
        Answer::ChangedNamespaces(part) => data = session.changed.page(part.offset),
        Answer::InactiveNamespace | Answer::HostMemoryOff => {}
    }
    data
}
