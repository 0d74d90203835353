//! Options of `pinvisor plan`.

use std::path::PathBuf;

use clap::Args;

use super::RunArgs;
use crate::plan::Output;

/// Options of `pinvisor plan`: those of a run, and where the plan goes.
#[derive(Args, Clone, Debug, Default)]
pub struct PlanArgs {
    /// The run that is planned.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print the plan as JSON (docs/plan.md)
    #[arg(long)]
    json: bool,

    /// Draw the guest's addresses into FILE, an SVG image
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl PlanArgs {
    /// Where the plan goes.
    #[must_use]
    pub fn output(&self) -> Output {
        Output {
            json: self.json,
            svg: self.svg.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn a_run_is_planned_by_another_word() {
        let words = "pinvisor plan --kernel k --memory 1G,spare=0 --device 01:00.0 --noiommu \
                     --serial off --json --svg a.svg";
        let Command::Plan(args) = Cli::parse_from(words.split_whitespace()).command else {
            panic!("not a plan");
        };
        let output = args.output();
        assert!(output.json);
        assert_eq!(output.svg, Some("a.svg".into()));
        let config = args.run.into_config(0).unwrap().guest;
        assert_eq!(config.memory.spare, Some(0));
        assert_eq!(config.devices.len(), 1);
    }
}
