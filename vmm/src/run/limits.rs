// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of this process that would end a guest long after its start.

use std::io as std_io;

use host::{OpenFiles, SysRoot};
use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_sys_util::signal::register_signal_handler;

use super::error::RunError;

/// Raises the limit on open files as far as this process may: every MSI-X vector that a guest uses is a
/// file, and shells and service managers leave 1024 for programs that use select(2), which this one does
/// not.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = raise(Resource::Nofile, limit) {
        log::debug!(
            "Cannot raise the limit on open files, {:?}: {error}",
            limit.current
        );
    }
}

/// Whether the limit on open files suffices for `files`.
///
/// # Errors
/// [`RunError::TooFewFiles`]
pub fn check_open_files(files: OpenFiles) -> Result<(), RunError> {
    let need = files.needed(&SysRoot::default());
    suffices(getrlimit(Resource::Nofile).current, need, files)
}

fn suffices(limit: Option<u64>, need: u64, files: OpenFiles) -> Result<(), RunError> {
    match limit.filter(|limit| *limit < need) {
        Some(limit) => Err(RunError::TooFewFiles { limit, need, files }),
        None => Ok(()),
    }
}

/// Makes a write past the limit on the size of files (`RLIMIT_FSIZE`) fail with an error that can be
/// reported, where SIGXFSZ would end this process. Guest memory is such a file, too. Programs that this one
/// starts have the signal as usual.
///
/// # Errors
/// The errno of `sigaction`.
pub fn report_file_size() -> std_io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(libc::SIGXFSZ, nothing).map_err(std_io::Error::from)
}

fn raise(resource: Resource, limit: Rlimit) -> io::Result<()> {
    if limit.current == limit.maximum {
        return Ok(());
    }
    setrlimit(
        resource,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    log::debug!(
        "open files: the limit is {:?} instead of {:?}",
        limit.maximum,
        limit.current
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::explain::{ExitCode, Explain, Limits};

    #[test]
    fn as_many_files_as_may_be_can_be_opened() {
        let before = getrlimit(Resource::Nofile);
        let most = before.maximum.unwrap();
        let lower = Rlimit {
            current: Some(most - 1),
            ..before
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        for _ in 0..2 {
            raise_open_files();
            assert_eq!(getrlimit(Resource::Nofile).current, Some(most));
        }
    }

    #[test]
    fn too_few_files_are_an_error_with_the_number_that_is_needed() {
        let files = OpenFiles {
            devices: 3,
            guarded: 0,
            cpus: 4,
            rings: 0,
        };
        assert!(suffices(Some(100), 100, files).is_ok());
        assert!(suffices(None, 100, files).is_ok());
        let error = suffices(Some(20), 100, files).unwrap_err();
        assert_eq!(
            (error.id(), error.exit_code()),
            ("too-few-files", ExitCode::Host)
        );
        let text = error.to_string();
        assert!(text.contains("100") && text.contains("20"), "{text}");
        assert!(!text.contains("guarded"), "{text}");
        let guarded = OpenFiles {
            guarded: 2,
            ..files
        };
        let text = suffices(Some(20), 100, guarded).unwrap_err().to_string();
        assert!(text.contains("(14 for guarded NVMe controllers)"), "{text}");
        assert!(error.hint(Limits::NONE).unwrap().contains("ulimit -n 100"));
    }
}
