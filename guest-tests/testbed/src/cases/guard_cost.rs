// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens for each read of a guarded NVMe controller is no more than promised. `cargo testbed bench --only guarded`
//! measures the same, and judges what it costs as well.

use crate::bench::{guarded, rows};
use crate::error::{AtPath, Result};
use crate::paths;
use crate::runner::CaseResult;

/// Exits and messages of reads.
pub fn reads() -> Result<CaseResult> {
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let facts = guarded::measure(folder.path(), &paths::sibling_program("pinvisor")?)?;
    println!("{}", guarded::table(&facts));
    let mut events = guarded::events(&facts);
    events.retain(|row| row.is_met() != Some(true));
    Ok(match events.is_empty() {
        true => Ok(()),
        false => Err(rows::lines(&events)),
    })
}
