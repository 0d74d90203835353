// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A seccomp filter that denies one system call, as those of containers do.

use std::io;

use clap::Args;

use crate::error::{Error, Result};

/// What is denied. Everything else is allowed.
#[derive(Args, Clone, Copy, Debug)]
pub struct DeniedCall {
    /// Number of the system call (arch/x86/entry/syscalls/syscall_64.tbl).
    #[arg(long)]
    call: u32,
    /// Of ioctl: the request.
    #[arg(long, value_parser = hexadecimal)]
    request: Option<u32>,
    /// The errno with which it fails.
    #[arg(long)]
    errno: u16,
}

fn hexadecimal(text: &str) -> std::result::Result<u32, String> {
    let digits = text.strip_prefix("0x").ok_or("0x is missing")?;
    u32::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

/// Offsets in `struct seccomp_data` (include/uapi/linux/seccomp.h): the number of the call, and the low half
/// of its second argument, which is ioctl's request.
const CALL: u32 = 0;
const REQUEST: u32 = 24;

/// Runs the command under that filter and returns its status.
///
/// # Errors
/// [`Error::Usage`]: the kernel takes no filter; [`Error::Start`].
pub fn run(deny: DeniedCall, command: &[String]) -> Result<i32> {
    let program = program(deny);
    install(&program)
        .map_err(|error| Error::Usage(format!("Cannot filter system calls: {error}")))?;
    super::run(command)
}

/// The filter: for each condition, loads a word of the data and continues with the next if it
/// matches, else to the end, where the call is allowed.
fn program(deny: DeniedCall) -> Vec<libc::sock_filter> {
    let conditions: Vec<_> = [
        Some((CALL, deny.call)),
        deny.request.map(|word| (REQUEST, word)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut program = Vec::new();
    for (number, (offset, wanted)) in conditions.iter().enumerate() {
        // Over the conditions that follow, and the denial.
        let to_end = 2 * (conditions.len() - number - 1) + 1;
        program.push(operation(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            *offset,
        ));
        program.push(libc::sock_filter {
            jf: u8::try_from(to_end).unwrap_or(u8::MAX),
            ..operation(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *wanted)
        });
    }
    let denied = libc::SECCOMP_RET_ERRNO | u32::from(deny.errno);
    let ends = [denied, libc::SECCOMP_RET_ALLOW].into_iter();
    program.extend(ends.map(|end| operation(libc::BPF_RET | libc::BPF_K, end)));
    program
}

fn operation(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt: 0,
        jf: 0,
        k: value,
    }
}

/// For this process, and all that it starts.
fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` names a program of so many operations, which lives until the call returns; the kernel
    // copies it and writes to none of it.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;

    /// Results of ioctls of these requests on a file that supports none of them.
    fn errnos(requests: [libc::Ioctl; 2]) -> [Option<i32>; 2] {
        let file = File::open("/dev/null").unwrap();
        requests.map(|request| {
            // SAFETY: no driver takes the request, so the argument is not looked at.
            unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
            io::Error::last_os_error().raw_os_error()
        })
    }

    #[test]
    fn one_request_is_denied_and_no_other() {
        const DENIED: libc::Ioctl = 0x3b76;
        let deny = DeniedCall {
            call: 16,
            request: Some(0x3b76),
            errno: 38,
        };
        // A filter is its thread's own.
        let found = thread::spawn(move || {
            let before = errnos([DENIED, DENIED + 1]);
            install(&program(deny)).unwrap();
            [before, errnos([DENIED, DENIED + 1])]
        });
        let not_known = Some(libc::ENOTTY);
        let wanted = [[not_known, not_known], [Some(libc::ENOSYS), not_known]];
        assert_eq!(found.join().unwrap(), wanted);
    }

    #[test]
    fn a_call_without_request_is_denied_whatever_its_arguments_are() {
        let deny = DeniedCall {
            call: 16,
            request: None,
            errno: 1,
        };
        let found = thread::spawn(move || {
            install(&program(deny)).unwrap();
            errnos([1, 2])
        });
        assert_eq!(found.join().unwrap(), [Some(libc::EPERM); 2]);
    }
}
