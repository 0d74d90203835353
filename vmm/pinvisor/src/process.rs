// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Start-up and error output that all programs of the project share.

use std::error::Error as StdError;

use crate::error::Error;
use crate::fatal;

/// Makes limits and fatal signals leave a report. Once for the process.
///
/// # Errors
/// [`vmm::Error::Process`]
pub fn prepare() -> Result<(), Error> {
    let handlers = vmm::limits::report_file_size().and_then(|()| fatal::install());
    Ok(handlers.map_err(vmm::process("install a signal handler"))?)
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
