// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From what the guest has programmed to what the host delivers.

use std::collections::BTreeMap;
use std::ops::Range;

use pci_config::InterruptKind;

use crate::pci::{MAX_VECTORS, MsiMessage};

use super::host::HostFunction;
use super::report::Reporter;

/// The guest's request: a kind of interrupt and how many vectors of it to begin with, or none.
pub(super) type Wanted = Option<(InterruptKind, u16)>;

/// What the host is configured for.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupts {
    kind: Option<InterruptKind>,
    /// How many vectors the host was asked for when that was turned on.
    asked: u16,
    /// For each vector that is on: the message it is connected to.
    on: BTreeMap<u16, Option<MsiMessage>>,
    /// The host refused INTx; not asked again until reset.
    line_refused: bool,
    /// It has been logged that the host has too few vectors.
    is_short: bool,
}

impl Interrupts {
    /// The kind that is on.
    pub(super) fn kind(&self) -> Option<InterruptKind> {
        self.kind
    }

    /// Whether `vector` is on, connected or not.
    pub(super) fn is_on(&self, vector: u16) -> bool {
        self.on.contains_key(&vector)
    }

    /// Brings the host to the kind and number of vectors that the guest requests; false if what is
    /// on cannot be turned off.
    pub(super) fn settle_kind<H: HostFunction>(
        &mut self,
        wanted: Wanted,
        host: &mut H,
        reporter: &mut Reporter,
    ) -> bool {
        if self.must_turn_off(wanted) && !self.turn_off(host, reporter) {
            return false;
        }
        if let Some((kind, vectors)) = wanted {
            self.turn_on(kind, vectors, host, reporter);
        }
        true
    }

    /// Connects each vector in `changed` to its message, or disconnects it if it has none.
    pub(super) fn settle_vectors<H: HostFunction>(
        &mut self,
        changed: Range<u16>,
        message: impl Fn(u16) -> Option<MsiMessage>,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        if self.kind.is_some_and(InterruptKind::is_message) {
            for vector in changed.start..changed.end.min(MAX_VECTORS) {
                self.settle_vector(vector, message(vector), host, reporter);
            }
        }
    }

    /// Turns off what is on; false if the host does not.
    pub(super) fn turn_off<H: HostFunction>(
        &mut self,
        host: &mut H,
        reporter: &mut Reporter,
    ) -> bool {
        if self.kind.is_none() {
            return true;
        }
        if let Err(error) = host.disable_interrupts() {
            reporter.fail("cannot disable interrupts", error);
            return false;
        }
        self.kind = None;
        self.on.clear();
        true
    }

    /// Whether `vector` waits for its mask to go.
    pub(super) fn is_pending<H: HostFunction>(&self, vector: u16, host: &mut H) -> bool {
        self.on.get(&vector) == Some(&None) && host.pending(vector)
    }

    /// Asks for INTx again, after a reset, and logs again what the host lacks.
    pub(super) fn forget_refusal(&mut self) {
        self.line_refused = false;
        self.is_short = false;
    }

    fn must_turn_off(&self, wanted: Wanted) -> bool {
        match (self.kind, wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            // MSI cannot change its number of vectors while on; those of other kinds stay the same.
            (Some(on), Some((kind, vectors))) => on != kind || vectors != self.asked,
        }
    }

    fn turn_on<H: HostFunction>(
        &mut self,
        kind: InterruptKind,
        vectors: u16,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        let is_refused = !kind.is_message() && self.line_refused;
        if self.kind == Some(kind) || is_refused {
            return;
        }
        match host.enable_interrupts(kind, vectors) {
            Ok(on) => {
                self.kind = Some(kind);
                self.asked = vectors;
                self.on = (0..on).map(|vector| (vector, None)).collect();
            }
            // Without any interrupt a driver waits for ever, and the user never learns why.
            Err(error) if kind.is_message() => {
                reporter.fail(format!("cannot enable {kind}"), error);
            }
            // Many drivers never use INTx, so it may be missing until one needs it.
            Err(error) => {
                self.line_refused = true;
                reporter.warn(format_args!("no {kind} interrupts: {error}"));
            }
        }
    }

    fn settle_vector<H: HostFunction>(
        &mut self,
        vector: u16,
        message: Option<MsiMessage>,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        let on = self.on.get(&vector).copied();
        if on.flatten() == message {
            return;
        }
        let result = match message {
            Some(message) => host.connect(vector, message),
            None => host.disconnect(vector),
        };
        match result {
            Ok(()) => {
                self.on.insert(vector, message);
            }
            // The guest has the others; it is asked for again when the guest changes it.
            Err(error) if on.is_none() => {
                if !std::mem::replace(&mut self.is_short, true) {
                    reporter.warn(format_args!(
                        "interrupt vector {vector} does not reach the guest: {error}; later \
                         failures are not logged"
                    ));
                }
            }
            Err(error) => reporter.fail("cannot change an interrupt vector", error),
        }
    }
}
