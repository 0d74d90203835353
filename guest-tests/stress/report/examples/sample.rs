// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writes reports of made-up runs into the directory that is named: `cargo run -p stress-report
//! --example sample -- DIRECTORY`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::path::PathBuf;

use stress_report::{Terminal, text, write_html, write_json};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("Name a directory")?);
    for (name, run) in [
        ("one", common::passing(1)),
        ("passing", common::passing(30)),
        ("many", common::passing(150)),
        ("failing", common::failing()),
    ] {
        let report = run.report();
        let terminal = Terminal {
            width: 100,
            colour: true,
        };
        println!("{}", text(&report, terminal));
        write_json(&report, &directory.join(name).with_extension("json"))?;
        write_html(&report, &directory.join(name).with_extension("html"))?;
    }
    Ok(())
}
