// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of `pinvisor plan`.

use clap::Args;

use super::GuestArgs;

/// Options of `pinvisor plan`: those of a run, and where the plan goes.
#[derive(Args, Clone, Debug, Default)]
pub struct PlanArgs {
    /// The run that is planned.
    #[command(flatten)]
    pub run: GuestArgs,

    /// Print the plan as JSON (docs/guide/plan.md)
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn a_run_is_planned_by_another_word() {
        let words = "pinvisor plan --kernel k --memory 1G,spare=0 --device 01:00.0 --noiommu \
                     --serial off --json";
        let Command::Plan(args) = Cli::parse_from(words.split_whitespace()).command else {
            panic!("not a plan");
        };
        assert!(args.json);
        let config = args.run.into_config(0).unwrap().guest;
        assert_eq!(config.memory.spare, Some(0));
        assert_eq!(config.devices.len(), 1);
    }
}
