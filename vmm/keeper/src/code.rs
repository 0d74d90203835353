// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of the program's file stays mapped while a guest runs: what is used then, not what read the command line and
//! opened devices.

use std::ffi::{c_int, c_void};
use std::ptr;

use libc::{PF_W, PT_LOAD, dl_iterate_phdr, dl_phdr_info};
use rustix::mm::{Advice, madvise};

/// Unmaps the pages of the program's code and constants. Those that are used from now on are mapped again from the page
/// cache; the others no longer count as this process's memory, and the kernel can use theirs for something else. Of system
/// calls it takes `madvise` only, so that a thread whose calls are filtered may do it.
pub fn release_code() {
    // SAFETY: the function is as `dl_iterate_phdr(3)` requires, and does not unwind.
    #[expect(unsafe_code, reason = "the program's own segments")]
    unsafe {
        dl_iterate_phdr(Some(release_program), ptr::null_mut());
    }
}

/// Of the first object, which is the program itself.
#[expect(unsafe_code, reason = "the program's own segments")]
unsafe extern "C" fn release_program(info: *mut dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the C library gives a pointer to its description of an object, which is valid during the call.
    let info = unsafe { &*info };
    // SAFETY: that many headers are there, for as long as the object is mapped.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        if header.p_type == PT_LOAD && header.p_flags & PF_W == 0 {
            release(info.dlpi_addr.wrapping_add(header.p_vaddr), header.p_memsz);
        }
    }
    1
}

/// The pages of a segment that is never written, from address `begin` on.
fn release(begin: u64, bytes: u64) {
    // rustix would ask the kernel, by a call that may be filtered.
    #[expect(unsafe_code, reason = "the program's own segments")]
    // SAFETY: the function looks a number up and has no preconditions.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) };
    if page == 0 {
        return;
    }
    let before = begin % page;
    let pages = (before + bytes).div_ceil(page) * page;
    let (Ok(address), Ok(pages)) = (usize::try_from(begin - before), usize::try_from(pages)) else {
        return;
    };
    let address = ptr::with_exposed_provenance_mut(address);
    #[expect(unsafe_code, reason = "the program's own segments")]
    // SAFETY: a segment's pages are a private mapping of the program's file, which no other segment shares. This one is not
    // writable, so that its pages are those of the page cache already, and mapping them again changes nothing. (A debugger's
    // breakpoints are written to copies, and are lost.)
    let result = unsafe { madvise(address, pages, Advice::LinuxDontNeed) };
    if let Err(errno) = result {
        log::debug!("Cannot unmap {pages} bytes of the program at {address:p}: {errno}");
    }
}
