// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writes the manual pages and the shell completions of the programs: `pinvisor-pages DIR`, by default
//! `target/pages`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

/// Where they go unless a directory is named.
const DEFAULT: &str = "target/pages";

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| DEFAULT.into());
    let folder = PathBuf::from(folder);
    match write(&folder) {
        Ok(()) => {
            println!("{}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "pinvisor-pages: cannot write to {}: {error}",
                folder.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// Writes `man` and `completions` to `folder`.
fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        std::fs::create_dir_all(folder)?;
    }
    for command in [
        pinvisor_stress::cli::Cli::command(),
        pinvisor::cli::Cli::command(),
    ] {
        let name = command.get_name().to_owned();
        clap_mangen::generate_to(command.clone(), &man)?;
        for shell in Shell::value_variants() {
            clap_complete::generate_to(*shell, &mut command.clone(), &name, &completions)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pinvisor::cli::Cli;

    use super::*;

    fn commands() -> Vec<String> {
        let cli = Cli::command();
        let names = cli.get_subcommands().filter(|one| !one.is_hide_set());
        names.map(|one| one.get_name().to_owned()).collect()
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_completes_it() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let main = read("man/pinvisor.1");
        assert!(main.contains("Exit codes"), "{main}");
        assert!(read("man/pinvisor-stress.1").contains(".SH SYNOPSIS"));
        assert!(commands().contains(&"run".to_owned()));
        let scripts = ["pinvisor.bash", "_pinvisor", "pinvisor.fish"];
        let scripts = scripts.map(|name| read(&format!("completions/{name}")));
        for name in commands() {
            assert!(main.contains(&format!("pinvisor\\-{name}(1)")), "{name}");
            assert!(read(&format!("man/pinvisor-{name}.1")).contains(".SH SYNOPSIS"));
            assert!(
                scripts.iter().all(|script| script.contains(&name)),
                "{name}"
            );
        }
        assert!(read("man/pinvisor-run.1").contains("\\-\\-event\\-fd"));
    }
}
