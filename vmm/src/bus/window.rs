//! The DMA window of a guest that translates: where it stands, and the run's table in the guest.

use std::ops::Range;
use std::sync::Arc;

use address::{Bdf, Gpa};
use devices::dma_window::{DmaWindow, Options, REGISTERS_SIZE, SetupError};
use devices::vfio_pci::BusMasterGate;
use iommufd_backend::TablePages;

use crate::bus::address_map::AddressMap;
use crate::kvm::vm::{Memslot, Vm, VmError};
use crate::memory::table::RamTable;

/// The registers stand below.
const LIMIT_4G: Gpa = Gpa(1 << 32);

/// Why a guest cannot have its window.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The bus has no room.
    #[error("The host's address map has no room for the DMA window's {what}, {size:#x} bytes")]
    NoRoom {
        /// Registers or table.
        what: &'static str,
        /// Bytes.
        size: u64,
    },
    /// The function cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// KVM does not take the table.
    #[error(transparent)]
    Vm(#[from] VmError),
}

/// Where a window's BARs stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Registers.
    pub registers: Gpa,
    /// The table.
    pub table: Gpa,
}

impl Places {
    /// Places for the BARs, that of the table of `table_size` bytes, clear of `bars`.
    ///
    /// # Errors
    /// [`WindowError::NoRoom`]
    pub fn find(
        table_size: u64,
        host_map: &AddressMap,
        bars: &[Range<Gpa>],
    ) -> Result<Self, WindowError> {
        let mut taken = bars.to_vec();
        let mut place = |what, size, limit| {
            let at = host_map
                .free(size, &taken)
                .filter(|at| *at + size <= limit)
                .ok_or(WindowError::NoRoom { what, size })?;
            taken.push(at..at + size);
            Ok::<_, WindowError>(at)
        };
        Ok(Self {
            registers: place("registers", REGISTERS_SIZE, LIMIT_4G)?,
            table: place("table", table_size, Gpa(u64::MAX))?,
        })
    }
}

/// Makes the window that shows `table`, which was made for `places`. Through it the guest lets
/// `functions` master the bus. The memslot is the table's own memory.
///
/// # Errors
/// [`WindowError`]
pub fn open(
    table: &Arc<RamTable>,
    places: Places,
    vm: &Arc<Vm>,
    functions: Vec<(Bdf, BusMasterGate)>,
) -> Result<(DmaWindow<TablePages>, Memslot), WindowError> {
    let window = DmaWindow::new(Options {
        registers: places.registers,
        table: Arc::clone(table),
        functions,
    })?;
    let slot = vm.map_read_only(places.table, table.pages().mapping())?;
    log::info!(
        "DMA window: registers gpa={}, table gpa={} of {} pages",
        places.registers,
        places.table,
        table.pages().as_ref().len()
    );
    Ok((window, slot))
}
