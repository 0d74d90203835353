//! The DMA window of a guest that translates: where it stands, and its table in guest memory.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use address::{Bdf, Gpa};
use devices::dma_window::{
    BuildError, DmaWindow, GuestMemory, Options, REGISTERS_SIZE, SetupError, WindowTable,
};
use devices::vfio_pci::BusMasterGate;
use iommufd_backend::Mapping;
use rustix::fs::MemfdFlags;

use crate::host_map::HostMap;
use crate::kvm::vm::{Memslot, Vm, VmError};

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
    /// The table cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The function cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The table's memory cannot be had.
    #[error("Cannot make memory for the DMA window's table")]
    Memory(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// KVM does not take the table.
    #[error(transparent)]
    Vm(#[from] VmError),
}

/// Makes the window of a guest with `memory`, clear of `bars`. Through it the guest lets
/// `functions` master the bus. The memslot shows the table.
///
/// # Errors
/// [`WindowError`]
pub fn open(
    memory: &GuestMemory,
    (host_map, bars): (&HostMap, &[Range<Gpa>]),
    vm: &Arc<Vm>,
    functions: Vec<(Bdf, BusMasterGate)>,
) -> Result<(DmaWindow, Memslot), WindowError> {
    let mut taken = bars.to_vec();
    let mut place = |what, size, limit| {
        let at = host_map
            .free(size, &taken)
            .filter(|at| *at + size <= limit)
            .ok_or(WindowError::NoRoom { what, size })?;
        taken.push(at..at + size);
        Ok::<_, WindowError>(at)
    };
    let registers = place("registers", REGISTERS_SIZE, LIMIT_4G)?;
    let base = place("table", memory.bar_size(), Gpa(u64::MAX))?;
    let table = WindowTable::build(memory.clone(), base)?;
    let mapping = copy(&table).map_err(WindowError::Memory)?;
    let slot = vm.map_read_only(base, Arc::new(mapping))?;
    log::info!(
        "DMA window: registers gpa={registers}, table gpa={base} of {} pages",
        table.pages().len()
    );
    let window = DmaWindow::new(Options {
        registers,
        table,
        functions,
    })?;
    Ok((window, slot))
}

/// The table in memory that can be mapped into the guest, with zeros up to the BAR's end.
fn copy(table: &WindowTable) -> Result<Mapping, Box<dyn std::error::Error + Send + Sync>> {
    let mut file = File::from(rustix::fs::memfd_create("dma-window", MemfdFlags::CLOEXEC)?);
    for page in table.pages().iter() {
        let bytes: Vec<u8> = (0..amdv1::level::ENTRIES)
            .flat_map(|index| page.load(index).map_or(0, |entry| entry.0).to_le_bytes())
            .collect();
        file.write_all(&bytes)?;
    }
    file.set_len(table.bar_size())?;
    let mut mapping = Mapping::reserve(table.bar_size(), table.base().0)?;
    mapping.place(
        0,
        table.bar_size(),
        (file.as_fd(), 0),
        "the DMA window's table",
    )?;
    Ok(mapping)
}
