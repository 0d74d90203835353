//! Where this process's memory is by `/proc/self/pagemap` (Documentation/admin-guide/mm/pagemap).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use address::Hpa;
use iommufd_backend::Mapping;

const PAGE: u64 = 4096;

pub struct Pagemap(File);

impl Pagemap {
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Physical address of the byte at `address`, whose page was touched.
    pub fn hpa(&self, address: u64) -> Result<Hpa, Box<dyn std::error::Error>> {
        const PRESENT: u64 = 1 << 63;
        const FRAME: u64 = (1 << 55) - 1;
        let mut entry = [0; 8];
        self.0.read_exact_at(&mut entry, address / PAGE * 8)?;
        let entry = u64::from_ne_bytes(entry);
        if entry & PRESENT == 0 {
            return Err(format!("pagemap knows nothing of {address:#x}").into());
        }
        Ok(Hpa((entry & FRAME) * PAGE + address % PAGE))
    }
}

/// Reads a byte of each of the pages `pages`, in that order, of the file that fills `mapping`:
/// pagemap tells of pages that this process has in its page tables only.
pub fn touch(mapping: &Mapping, pages: impl IntoIterator<Item = u64>) {
    for page in pages {
        assert!(page < mapping.length() / PAGE);
        let Ok(address) = usize::try_from(mapping.start().0 + page * PAGE) else {
            continue;
        };
        // SAFETY: the page is inside the mapping, which is readable and outlives the call.
        unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    }
}
