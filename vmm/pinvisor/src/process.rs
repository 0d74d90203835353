// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Start-up and error output that all programs of the project share.

use std::error::Error as StdError;
use std::process;

use rustix::process::{WaitOptions, wait};

use crate::error::Error;
use crate::fatal;
use crate::screen::print_message;

/// The first process of a PID namespace, as that of a container.
const FIRST: u32 = 1;

/// Makes limits and fatal signals leave a report. Once for the process.
///
/// # Errors
/// [`vmm::Error::Process`]
pub fn prepare() -> Result<(), Error> {
    let handlers = vmm::limits::report_file_size().and_then(|()| fatal::install());
    Ok(handlers.map_err(vmm::process("install a signal handler"))?)
}

/// Waits for the keeper if it keeps memory because of `error` and this process is the first of its PID namespace: the end
/// of that process kills all others of the namespace (Linux kernel/pid_namespace.c, `zap_pid_ns_processes`), and memory
/// would return to the host while a device may write to it.
pub fn outlive_keeper(error: &Error) {
    if process::id() != FIRST || !error.keeps_memory() {
        return;
    }
    print_message(
        "pinvisor: this process remains until the memory is released: it is the first of its PID namespace, and its \
         end would kill the process that holds the memory\n",
    );
    // Until there is no child: ECHILD.
    while wait(WaitOptions::empty()).is_ok() {}
}

/// An error with its `id`, what is behind it, the way out, and the check that looks for it.
#[must_use]
pub fn report(id: &str, error: &dyn StdError, hint: Option<String>, check: Option<&str>) -> String {
    let mut text = format!("pinvisor: error[{id}]: {}\n", vmm::chain(error));
    if let Some(hint) = hint {
        text.push_str(&format!("pinvisor: hint: {hint}\n"));
    }
    if let Some(check) = check {
        text.push_str(&format!("pinvisor: check: {check}\n"));
    }
    text
}
