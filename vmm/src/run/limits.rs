//! Limits of this process that would end a guest long after its start.

use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit on open files as far as this process may. Every MSI-X vector that a guest uses is a
/// file, and shells and service managers leave 1024 for programs that use select(2), which this one
/// does not.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = raise(Resource::Nofile, limit) {
        log::debug!(
            "Cannot raise the limit on open files, {:?}: {error}",
            limit.current
        );
    }
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
        "open files: {:?} may be, not {:?}",
        limit.maximum,
        limit.current
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
