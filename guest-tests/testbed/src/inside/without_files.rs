// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether the kernel restricts what a monitor's main thread may open, where no filter of system calls does it first.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use vmm::config::{ConfineConfig, OnReset, Seccomp};
use vmm::confine::{ConfineError, Confinement, ThreadKind};

use crate::error::{AtPath, Error, Result};

/// Confines this process, attempts what it may and may not do with files, and prints what came of it.
///
/// # Errors
/// [`Error::File`], [`Error::Usage`]
pub fn run() -> Result<i32> {
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let folder = folder.keep();
    let (kept, left) = (folder.join("kept"), folder.join("left"));
    for directory in [&kept, &left] {
        fs::create_dir(directory).at("create", directory)?;
    }
    let mut open = File::create(kept.join("open")).at("create", "a file")?;
    fs::write(left.join("file"), "").at("create", "a file")?;
    let directory = File::open(&left).at("open", &left)?;
    confine(&directory).map_err(|error| Error::Usage(format!("not confined: {error}")))?;
    let results = [
        ("write_open", open.write_all(b"after")),
        ("remove_left", fs::remove_file(left.join("file"))),
        ("remove_kept", fs::remove_file(kept.join("open"))),
        ("read", File::open("/proc/self/status").map(drop)),
        ("create", File::create(left.join("new")).map(drop)),
        ("run", Command::new("/proc/self/exe").spawn().map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
    ];
    for (what, result) in results {
        let result = match result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.kind().to_string(),
        };
        println!("testbed: files_{what}={result}");
    }
    Ok(0)
}

fn confine(left: &File) -> std::result::Result<(), ConfineError> {
    let config = ConfineConfig {
        seccomp: Seccomp::Off,
        ..ConfineConfig::default()
    };
    let confinement = Confinement::new(&config, OnReset::Exit)?;
    // What fails is seen in the result.
    let _ = confinement.may_remove_in(left.as_fd());
    confinement.enclose()?;
    confinement.enter(ThreadKind::Main)
}
