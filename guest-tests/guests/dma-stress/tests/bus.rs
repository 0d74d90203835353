// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Functions are read from configuration space, and not moved.

use std::cell::RefCell;

use address::Gpa;
use dma_stress::pci::scan;
use pci_types::{ConfigRegionAccess, PciAddress};

/// Configuration space of device 3: 64-bit BAR of 1 MiB, ports, MSI, MSI-X.
struct Config(RefCell<[u32; 64]>);

const BAR0: usize = 4;
const BAR2: usize = 6;

impl Config {
    fn new() -> Self {
        let mut words = [0_u32; 64];
        words[0] = 0x11e8_1234;
        words[1] = 0x0010_0000; // capability list
        words[2] = 0x0108_0200;
        words[BAR0] = 0x4000_0004;
        words[BAR0 + 1] = 0xc0;
        words[BAR2] = 0xc001;
        words[13] = 0x40;
        words[15] = 0x0112; // pin A, line 18
        words[16] = 0x0080_5005; // MSI, 64 bits, next 0x50
        words[20] = 0x0003_0011; // MSI-X, 4 vectors
        words[21] = 0x2000;
        Self(RefCell::new(words))
    }
}

impl ConfigRegionAccess for Config {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        match (address.bus(), address.device(), address.function()) {
            (0, 3, 0) => self.0.borrow()[usize::from(offset / 4)],
            _ => u32::MAX,
        }
    }

    unsafe fn write(&self, _: PciAddress, offset: u16, value: u32) {
        let word = usize::from(offset / 4);
        let value = match word {
            BAR0 => value & 0xfff0_0000 | 4,
            BAR2 => value & 0xffff_fff0 | 1,
            // No such BAR.
            7..=9 => 0,
            _ => value,
        };
        self.0.borrow_mut()[word] = value;
    }
}

#[test]
fn a_function_is_read_and_left_where_it_is() {
    let config = Config::new();
    let before = *config.0.borrow();
    let functions = scan(&config);
    assert_eq!(functions.len(), 1);
    let function = &functions[0];
    assert_eq!(function.to_string(), "00:03.0");
    assert_eq!((function.id, function.class), ((0x1234, 0x11e8), (1, 8, 2)));
    let start = Gpa(0xc0_4000_0000);
    assert_eq!(function.memory_bar(0), Some(start..start + (1 << 20)));
    assert_eq!(
        (function.memory_bar(1), function.memory_bar(2)),
        (None, None)
    );
    assert_eq!(
        (function.port_bar(2), function.port_bar(0)),
        (Some(0xc000), None)
    );
    assert_eq!(function.memory_bars().count(), 1);
    assert!(function.msi.is_some_and(|msi| msi.is_64bit()));
    assert_eq!(
        function.msix.as_ref().map(|msix| msix.table_size()),
        Some(4)
    );
    assert_eq!((function.pin, function.line), (1, 18));
    assert_eq!(*config.0.borrow(), before);
}

#[test]
fn enabling_sets_the_command_register() {
    let config = Config::new();
    let functions = scan(&config);
    functions[0].enable(&config);
    assert_eq!(config.0.borrow()[1] & 0xffff, 0b111);
    functions[0].enable_line(false, &config);
    assert_eq!(config.0.borrow()[1] & 0xffff, 0b111 | 1 << 10);
    functions[0].enable_line(true, &config);
    assert_eq!(config.0.borrow()[1] & 0xffff, 0b111);
}
