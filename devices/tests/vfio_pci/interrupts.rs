// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every order of enable, mask, unmask, change and disable.

use devices::pci::{BarKind, MsiMessage};
use devices::vfio_pci::InterruptKind;
use devices_testing::{Call, DeviceImage};

use super::{BUS_MASTER, Bench, INTX_DISABLE, MEMORY};

pub(super) const MSIX: u16 = 0x50;
pub(super) const MSI: u16 = 0x60;
pub(super) const TABLE: u64 = 0x800;
const PENDING: u64 = 0xc00;

/// 5 MSI-X vectors with table and pending bits in the middle of a page, 4 maskable MSI vectors,
/// and INTx.
pub(super) fn image() -> DeviceImage {
    let mut image = DeviceImage::new("every kind", 256)
        .bar(
            0,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x2000,
            0xfe00_0000,
        )
        .capability(0x50, 0x11, &[4, 0, 0, 8, 0, 0, 0, 0xc, 0, 0])
        .capability(0x60, 0x05, &[0x84, 0x01]);
    image.info.interrupts[InterruptKind::Msi].count = 4;
    image
}

fn message(number: u8) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_1000,
        data: 0x4000 + u32::from(number) * 0x10,
    }
}

/// What a guest may do to MSI-X.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enable,
    Disable,
    MaskFunction,
    UnmaskFunction,
    Mask(u8),
    Unmask(u8),
    Message(u8, u8),
    Raise(u8),
}

const STEPS: [Step; 11] = [
    Step::Enable,
    Step::Disable,
    Step::MaskFunction,
    Step::UnmaskFunction,
    Step::Mask(0),
    Step::Unmask(0),
    Step::Mask(2),
    Step::Unmask(2),
    Step::Message(0, 7),
    Step::Message(2, 8),
    Step::Raise(2),
];

/// What the specification has after the steps.
#[derive(Clone, Debug)]
struct Model {
    enabled: bool,
    function_masked: bool,
    masked: [bool; 5],
    messages: [MsiMessage; 5],
    raised: [bool; 5],
    /// Vectors that must be on in the host: the first, and those that were connected since.
    on: [bool; 5],
}

impl Model {
    fn new() -> Self {
        Self {
            enabled: false,
            function_masked: false,
            masked: [true; 5],
            messages: [MsiMessage::default(); 5],
            raised: [false; 5],
            on: [false; 5],
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Enable => self.enabled = true,
            Step::Disable => self.enabled = false,
            Step::MaskFunction => self.function_masked = true,
            Step::UnmaskFunction => self.function_masked = false,
            Step::Mask(vector) => self.masked[usize::from(vector)] = true,
            Step::Unmask(vector) => self.masked[usize::from(vector)] = false,
            Step::Message(vector, number) => {
                self.messages[usize::from(vector)] = message(number);
            }
            Step::Raise(vector) => {
                let vector = usize::from(vector);
                self.raised[vector] = self.connected(vector).is_none();
            }
        }
        for vector in 0..5 {
            let delivers = self.connected(vector).is_some();
            self.on[vector] = self.enabled && (self.on[vector] || delivers || vector == 0);
            self.raised[vector] &= !delivers;
        }
    }

    fn connected(&self, vector: usize) -> Option<MsiMessage> {
        let delivers = self.enabled && !self.function_masked && !self.masked[vector];
        delivers.then_some(self.messages[vector])
    }
}

fn perform(bench: &mut Bench, model: &Model, step: Step) {
    let control = |enabled, masked| {
        let bits = if enabled { 0x8000_u16 } else { 0 } | if masked { 0x4000 } else { 0 };
        bits.to_le_bytes()
    };
    let entry = |vector: u8| TABLE + 16 * u64::from(vector);
    match step {
        Step::Enable => bench.write(MSIX + 2, &control(true, model.function_masked)),
        Step::Disable => bench.write(MSIX + 2, &control(false, model.function_masked)),
        Step::MaskFunction => bench.write(MSIX + 2, &control(model.enabled, true)),
        Step::UnmaskFunction => bench.write(MSIX + 2, &control(model.enabled, false)),
        Step::Mask(vector) => bench.bar_write(0, entry(vector) + 12, 1),
        Step::Unmask(vector) => bench.bar_write(0, entry(vector) + 12, 0),
        Step::Message(vector, number) => {
            bench.bar_write(0, entry(vector), 0xfee0_1000);
            bench.bar_write(0, entry(vector) + 8, message(number).data);
        }
        Step::Raise(vector) => {
            // A connected vector delivers at once and is not pending.
            if model.connected(usize::from(vector)).is_none() {
                bench.witness.raise(vector.into());
            }
        }
    }
}

fn check(bench: &mut Bench, model: &Model, steps: &[Step]) {
    let interrupts = bench.witness.interrupts();
    if !model.enabled {
        assert_eq!(interrupts, None, "{steps:?}");
        return;
    }
    let (kind, vectors) = interrupts.unwrap();
    assert_eq!(kind, InterruptKind::Msix, "{steps:?}");
    let last = model.on.iter().rposition(|on| *on).unwrap();
    assert_eq!(vectors.len(), last + 1, "{steps:?}");
    for (vector, connected) in vectors.iter().enumerate() {
        assert_eq!(
            *connected,
            model.connected(vector),
            "vector {vector} after {steps:?}"
        );
    }
    let pending = bench.bar_read(0, PENDING);
    for vector in (0..5).filter(|vector| model.on[*vector]) {
        let bit = pending >> vector & 1 != 0;
        assert_eq!(
            bit, model.raised[vector],
            "pending {vector} after {steps:?}"
        );
    }
}

#[test]
fn msix_follows_every_order_of_five_steps() {
    let mut order = [0; 5];
    let mut bench = Bench::new(image());
    loop {
        let steps = order.map(|step: usize| STEPS[step]);
        devices::pci::PciFunction::reset(&mut bench.function);
        bench.command(MEMORY | BUS_MASTER | INTX_DISABLE);
        let _ = bench.calls();
        let mut model = Model::new();
        for (done, step) in steps.into_iter().enumerate() {
            perform(&mut bench, &model, step);
            model.step(step);
            // Each beginning is checked once, in the first order that has it.
            if order[done + 1..].iter().all(|digit| *digit == 0) {
                check(&mut bench, &model, &steps[..=done]);
            }
        }
        let Some(digit) = order.iter().position(|digit| digit + 1 < STEPS.len()) else {
            break;
        };
        order[..digit].fill(0);
        order[digit] += 1;
    }
}

/// A guest's choice between the kinds of interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Msix(bool),
    Msi(bool),
    MsiVectors(u8),
    MsiMask(u8),
    Command(u16),
    Reset,
}

const CHOICES: [Choice; 11] = [
    Choice::Msix(true),
    Choice::Msix(false),
    Choice::Msi(true),
    Choice::Msi(false),
    Choice::MsiVectors(0),
    Choice::MsiVectors(2),
    Choice::MsiMask(0),
    Choice::MsiMask(2),
    Choice::Command(MEMORY),
    Choice::Command(MEMORY | INTX_DISABLE),
    Choice::Reset,
];

#[derive(Clone, Debug, Default)]
struct Kinds {
    msix: bool,
    msi: bool,
    granted: u8,
    mask: u8,
    command: u16,
    intx: bool,
}

impl Kinds {
    fn choose(&mut self, choice: Choice) {
        match choice {
            Choice::Msix(on) => self.msix = on,
            Choice::Msi(on) => self.msi = on,
            Choice::MsiVectors(power) => self.granted = power,
            Choice::MsiMask(mask) => self.mask = mask,
            Choice::Command(command) => self.command = command,
            Choice::Reset => *self = Self::default(),
        }
        let allowed = self.intx || self.command & INTX_DISABLE == 0;
        self.intx = !self.msix && !self.msi && allowed && self.command & MEMORY != 0;
    }

    fn expected(&self) -> Option<(InterruptKind, Vec<bool>)> {
        if self.msix {
            return Some((InterruptKind::Msix, vec![false]));
        }
        if self.msi {
            let connected = (0..1 << self.granted).map(|vector: u8| self.mask >> vector & 1 == 0);
            return Some((InterruptKind::Msi, connected.collect()));
        }
        self.intx.then(|| (InterruptKind::Intx, vec![false]))
    }
}

#[test]
fn the_kind_in_use_follows_every_order_of_four_choices() {
    for sequence in 0..CHOICES.len().pow(4) {
        let choices =
            [0, 1, 2, 3].map(|digit| CHOICES[sequence / CHOICES.len().pow(digit) % CHOICES.len()]);
        let mut bench = Bench::new(image());
        let mut kinds = Kinds::default();
        for choice in choices {
            kinds.choose(choice);
            match choice {
                Choice::Msix(on) => bench.write(MSIX + 2, &[0, u8::from(on) << 7]),
                Choice::Msi(_) | Choice::MsiVectors(_) => {
                    bench.write(MSI + 2, &[u8::from(kinds.msi) | kinds.granted << 4]);
                }
                Choice::MsiMask(mask) => bench.write(MSI + 0x10, &[mask]),
                Choice::Command(command) => bench.command(command),
                Choice::Reset => devices::pci::PciFunction::reset(&mut bench.function),
            }
            let on = bench.witness.interrupts().map(|(kind, vectors)| {
                (
                    kind,
                    vectors.iter().map(Option::is_some).collect::<Vec<_>>(),
                )
            });
            assert_eq!(on, kinds.expected(), "{choices:?} after {choice:?}");
        }
    }
}

#[test]
fn vectors_are_turned_on_as_they_are_unmasked() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | INTX_DISABLE);
    let _ = bench.calls();
    bench.write(MSIX + 2, &[0, 0xc0]);
    assert_eq!(bench.read(MSIX + 2, 2), 0xc004, "the guest sees it on");
    let on = |vectors| Call::Enable {
        kind: InterruptKind::Msix,
        vectors,
    };
    assert_eq!(bench.calls(), [on(1)], "and so does the device");
    bench.bar_write(0, TABLE + 16 * 3 + 12, 0);
    bench.bar_write(0, TABLE + 16 + 12, 0);
    assert_eq!(bench.calls(), [], "the function is masked");
    bench.write(MSIX + 2, &[0, 0x80]);
    let connect = |vector| Call::Connect {
        vector,
        message: MsiMessage::default(),
    };
    assert_eq!(bench.calls(), [connect(1), connect(3)]);
    bench.write(MSIX + 2, &[0, 0]);
    assert_eq!(bench.calls(), [Call::Disable]);
    bench.write(MSIX + 2, &[0, 0x80]);
    assert_eq!(bench.calls(), [on(1), connect(1), connect(3)]);
}

#[test]
fn a_message_changed_while_enabled_is_passed_on() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | INTX_DISABLE);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.bar_write(0, TABLE + 12, 0);
    let _ = bench.calls();
    bench.bar_write(0, TABLE + 8, 0x31);
    let changed = MsiMessage {
        address: 0,
        data: 0x31,
    };
    assert_eq!(
        bench.calls(),
        [Call::Connect {
            vector: 0,
            message: changed
        }]
    );
    bench.bar_write(0, TABLE + 8, 0x31);
    assert_eq!(bench.calls(), [], "no change, no call");

    bench.write(MSIX + 2, &[0, 0]);
    bench.write(MSI + 2, &[1]);
    let _ = bench.calls();
    bench.write(MSI + 4, &0xfee0_2000_u32.to_le_bytes());
    bench.write(MSI + 8, &1_u32.to_le_bytes());
    bench.write(MSI + 12, &[0x41, 0]);
    let messages: Vec<_> = [(0xfee0_2000, 0), (0x1_fee0_2000, 0), (0x1_fee0_2000, 0x41)]
        .map(|(address, data)| Call::Connect {
            vector: 0,
            message: MsiMessage { address, data },
        })
        .into();
    assert_eq!(bench.calls(), messages);
}

#[test]
fn pending_bits_come_from_host_and_device() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | INTX_DISABLE);
    // Bits of the device: only those of vectors that are off in the host count.
    bench
        .witness
        .set_register(devices::pci::Region::Bar(0), PENDING, &[0b10011]);
    assert_eq!(bench.bar_read(0, PENDING), 0b10011);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.bar_write(0, TABLE + 16 + 12, 0);
    bench.bar_write(0, TABLE + 16 + 12, 1);
    bench.witness.raise(1);
    assert_eq!(bench.bar_read(0, PENDING), 0b10010);
    bench.bar_write(0, PENDING, 0);
    assert_eq!(bench.bar_read(0, PENDING), 0b10010, "read-only");
    bench.bar_write(0, TABLE + 16 + 12, 0);
    assert_eq!(bench.bar_read(0, PENDING), 0b10000, "delivered");
    let mut wide = [0xaa; 8];
    devices::pci::PciFunction::bar_read(
        &mut bench.function,
        devices::pci::Region::Bar(0),
        PENDING,
        &mut wide,
    );
    assert_eq!(u64::from_le_bytes(wide), 0b10000);
}

#[test]
fn msi_pending_bits_come_from_the_host() {
    let mut bench = Bench::new(image());
    bench.write(MSI + 0x10, &[0b10]);
    bench.write(MSI + 2, &[0x11]);
    bench.witness.raise(1);
    assert_eq!(bench.read(MSI + 0x14, 4), 0b10);
    bench.write(MSI + 0x10, &[0]);
    assert_eq!(bench.read(MSI + 0x14, 4), 0);
}

#[test]
fn intx_is_masked_by_the_device_and_off_without_a_pin() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY);
    let intx = Call::Enable {
        kind: InterruptKind::Intx,
        vectors: 1,
    };
    assert!(bench.calls().contains(&intx));
    bench.command(MEMORY | INTX_DISABLE);
    assert_eq!(
        bench.calls(),
        [super::config_write(4, MEMORY | INTX_DISABLE)]
    );
    bench.command(0);
    assert!(bench.calls().contains(&Call::Disable));

    let mut image = image();
    image.info.interrupts[InterruptKind::Intx].count = 0;
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(0x3c, 2), 0x000a, "no pin");
    bench.command(MEMORY);
    assert_eq!(bench.witness.interrupts(), None);
}

#[test]
fn kinds_that_the_host_cannot_serve_are_not_shown() {
    let mut image = image();
    (
        image.info.interrupts[InterruptKind::Msi].count,
        image.info.interrupts[InterruptKind::Msix].count,
    ) = (0, 0);
    let mut bench = Bench::new(image);
    assert_eq!(bench.capabilities(), []);
    bench.command(MEMORY | INTX_DISABLE);
    assert_eq!(
        bench.bar_read(0, TABLE),
        u32::MAX,
        "the table stays out of reach"
    );
    bench.bar_write(0, TABLE, 0);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.write(MSI + 2, &[1]);
    assert_eq!(bench.witness.interrupts(), None);
}

#[test]
fn no_more_vectors_are_shown_than_the_host_grants() {
    let mut image = image();
    (
        image.info.interrupts[InterruptKind::Msi].count,
        image.info.interrupts[InterruptKind::Msix].count,
    ) = (1, 3);
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(MSI + 2, 2), 0x0180);
    assert_eq!(bench.read(MSIX + 2, 2), 2);
    bench.command(MEMORY);
    assert_eq!(bench.bar_read(0, TABLE + 16 * 3), u32::MAX);
    bench.bar_write(0, TABLE + 16 * 3 + 12, 0);
    bench.write(MSIX + 2, &[0, 0x80]);
    assert_eq!(bench.witness.interrupts().unwrap().1.len(), 1);
}
