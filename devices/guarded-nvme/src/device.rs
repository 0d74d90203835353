//! What the monitor needs of the real device: registers, memory that it can reach, and an end of its DMA.

use address::Hpa;

/// Memory of the monitor's that the device accesses: whole pages of 4 KiB, zeroed, pinned, on no guest's table.
///
/// The device changes it while this runs. Accesses are of 8 bytes, little-endian, each a single load or store. They are in
/// no order by themselves; the crate puts fences where it needs one. An offset past the end does nothing and gives 0.
///
/// Dropping a block unpins it. The crate drops none while the device may be running.
pub trait Block {
    /// How many pages there are.
    fn pages(&self) -> usize;

    /// Where a page is for the device.
    fn hpa(&self, page: usize) -> Hpa;

    /// Reads the 8 bytes at `offset`, a multiple of 8.
    fn load(&self, offset: usize) -> u64;

    /// Writes the 8 bytes at `offset`, a multiple of 8.
    fn store(&self, offset: usize, value: u64);
}
