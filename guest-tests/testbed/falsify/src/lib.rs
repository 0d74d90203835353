// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel with injected faults, for one program: preloaded, this library replaces libc's `ioctl`
//! and `pread64`, and falsifies what the kernel answers.
//!
//! ```sh
//! LD_PRELOAD=libfalsify.so FALSIFY='ioctl 0x3b95 1 u64@32=0x1000' PROGRAM
//! ```
//!
//! The variable holds rules, with `;` between them, each of four words:
//!
//! | word | |
//! |---|---|
//! | call | `ioctl` or `pread` |
//! | number | the request, or the offset in the file |
//! | which | `3`: the third such call; `3-`: the third and all that follow |
//! | lie | `returns=-22`: the kernel is not asked, the call fails with errno 22; `u64@32=0x1000`: in what the kernel wrote, the 64 bits from byte 32 on (also `u8`, `u16`, `u32`) |
//!
//! Of requests only iommufd's and VFIO's can be answered falsely: their structures begin with their
//! size. Every injected result is printed on standard error; a rule that is wrong, or does not fit
//! the answer, ends the program with status 125.

mod rule;

use std::ffi::{c_int, c_ulong, c_void};
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::{env, process, slice};

use rule::{Lie, Rule};

/// Rules that could not be used.
const UNUSABLE: i32 = 125;

/// Replaces libc's, which is variadic: on x86-64 its third argument is passed as any other.
///
/// # Safety
/// As of `ioctl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let lies = lies("ioctl", request);
    if let Some(result) = result(&lies) {
        return result;
    }
    let length = match lies.is_empty() {
        true => 0,
        // SAFETY: rules with fields exist for requests only whose argument begins with its size in 32 bits
        // (include/uapi/linux/{iommufd,vfio}.h), and every structure of theirs is aligned for that.
        false => unsafe { argument.cast::<u32>().read() },
    };
    // SAFETY: the caller's own call, as it was.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) };
    if result >= 0 && length > 0 {
        // SAFETY: so many bytes the caller has lent the kernel to write to, for this call.
        falsify(&lies, unsafe {
            slice::from_raw_parts_mut(argument.cast(), length as usize)
        });
    }
    c_int::try_from(result).unwrap_or(-1)
}

/// Replaces libc's.
///
/// # Safety
/// As of `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(
    fd: c_int,
    buffer: *mut c_void,
    count: usize,
    offset: i64,
) -> isize {
    let lies = lies("pread", offset.cast_unsigned());
    if let Some(result) = result(&lies) {
        return result as isize;
    }
    // SAFETY: the caller's own call, as it was.
    let result = unsafe { libc::syscall(libc::SYS_pread64, fd, buffer, count, offset) };
    if let (Ok(length @ 1..), false) = (usize::try_from(result), lies.is_empty()) {
        // SAFETY: so many bytes at `buffer` the kernel has just written, at most `count` of them.
        falsify(&lies, unsafe {
            slice::from_raw_parts_mut(buffer.cast(), length)
        });
    }
    isize::try_from(result).unwrap_or(-1)
}

/// The results to inject into this call.
fn lies(call: &str, number: u64) -> Vec<&'static Lie> {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let text = env::var("FALSIFY").unwrap_or_default();
        rule::parse(&text).unwrap_or_else(|error| give_up(&error))
    });
    let due: Vec<_> = rules
        .iter()
        .filter(|rule| rule.is_due(call, number))
        .collect();
    due.into_iter()
        .inspect(|rule| report(rule))
        .map(Rule::lie)
        .collect()
}

/// The result of a call that is not to reach the kernel, as libc returns it.
fn result(lies: &[&Lie]) -> Option<c_int> {
    let result = lies.iter().find_map(|lie| lie.result())?;
    if result >= 0 {
        return Some(result);
    }
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = -result };
    Some(-1)
}

fn falsify(lies: &[&Lie], answer: &mut [u8]) {
    for lie in lies {
        if let Err(error) = lie.apply(answer) {
            give_up(&error);
        }
    }
}

fn give_up(error: &str) -> ! {
    report(error);
    process::exit(UNUSABLE)
}

/// Prints `what`. The keeper's standard error has no reader, which must not end the keeper.
fn report(what: impl Display) {
    let _ = writeln!(io::stderr(), "falsify: {what}");
}
