//! From what the guest has programmed to what the host delivers.

use std::ops::Range;

use crate::pci::MsiMessage;

use super::host::{HostFunction, InterruptKind};
use super::report::Reporter;

/// What the guest wants: a kind of interrupt and how many vectors of it, or none.
pub(super) type Wanted = Option<(InterruptKind, u16)>;

/// What the host has been told.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupts {
    kind: Option<InterruptKind>,
    /// One for each vector that is on: the message it is connected to.
    connected: Vec<Option<MsiMessage>>,
    /// The host refused INTx; not asked again until reset.
    intx_refused: bool,
}

impl Interrupts {
    /// The kind that is on.
    pub(super) fn kind(&self) -> Option<InterruptKind> {
        self.kind
    }

    /// How many vectors are on.
    pub(super) fn vectors(&self) -> u16 {
        u16::try_from(self.connected.len()).unwrap_or(u16::MAX)
    }

    /// Brings the host to what the guest wants: kind and number of vectors, then each vector in
    /// `changed` connected to its message, or disconnected if it has none.
    pub(super) fn settle<H: HostFunction>(
        &mut self,
        wanted: Wanted,
        changed: Range<u16>,
        message: impl Fn(u16) -> Option<MsiMessage>,
        (host, reporter): (&mut H, &mut Reporter),
    ) {
        if self.must_turn_off(wanted) && !self.turn_off(host, reporter) {
            return;
        }
        if let Some((kind, vectors)) = wanted {
            self.turn_on(kind, vectors, host, reporter);
        }
        if self.kind.is_some_and(|kind| kind != InterruptKind::Intx) {
            for vector in changed.start..changed.end.min(self.vectors()) {
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
            reporter.fail("cannot turn interrupts off", error);
            return false;
        }
        self.kind = None;
        self.connected.clear();
        true
    }

    /// Whether `vector` waits for its mask to go.
    pub(super) fn is_pending<H: HostFunction>(&self, vector: u16, host: &mut H) -> bool {
        self.connected.get(usize::from(vector)) == Some(&None) && host.pending(vector)
    }

    /// Asks for INTx again, after a reset.
    pub(super) fn forget_refusal(&mut self) {
        self.intx_refused = false;
    }

    fn must_turn_off(&self, wanted: Wanted) -> bool {
        match (self.kind, wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            // MSI cannot change its number of vectors while on; MSI-X can only grow.
            (Some(on), Some((kind, vectors))) => {
                on != kind || on == InterruptKind::Msi && vectors != self.vectors()
            }
        }
    }

    fn turn_on<H: HostFunction>(
        &mut self,
        kind: InterruptKind,
        vectors: u16,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        let enough = self.kind == Some(kind) && vectors <= self.vectors();
        if enough || kind == InterruptKind::Intx && self.intx_refused {
            return;
        }
        match (host.enable_interrupts(kind, vectors), kind) {
            (Ok(()), _) => {
                self.kind = Some(kind);
                self.connected.resize(vectors.into(), None);
            }
            // Many drivers never use INTx, so it may be missing until one wants it.
            (Err(error), InterruptKind::Intx) => {
                self.intx_refused = true;
                reporter.warn(format_args!("no INTx interrupts: {error}"));
            }
            (Err(error), InterruptKind::Msi) => reporter.fail("cannot turn MSI on", error),
            (Err(error), InterruptKind::Msix) => reporter.fail("cannot turn MSI-X on", error),
        }
    }

    fn settle_vector<H: HostFunction>(
        &mut self,
        vector: u16,
        message: Option<MsiMessage>,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        let Some(connected) = self.connected.get_mut(usize::from(vector)) else {
            return;
        };
        if *connected == message {
            return;
        }
        let result = match message {
            Some(message) => host.connect(vector, message),
            None => host.disconnect(vector),
        };
        match result {
            Ok(()) => *connected = message,
            Err(error) => reporter.fail("cannot change an interrupt vector", error),
        }
    }
}
