//! `tuner list`: the kernels.

use std::io::Write;

use kernels::{KernelEntry, Role, table};
use serde::Serialize;

use crate::cli::{Answer, Failure, IsaArgs, OutputArgs};
use crate::report::Table;

#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    isa: IsaArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Kernels {
    cpu: String,
    isa: String,
    kernels: Vec<Kernel>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    kernel: &'static str,
    family: &'static str,
    /// `candidate`, `baseline` or `oracle`.
    role: &'static str,
    /// Why a baseline is one.
    because: Option<&'static str>,
    /// Why this machine does not have it; null where it has.
    missing: Option<String>,
}

pub fn list(args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = args.isa.cpu();
    let kernel = |entry: &KernelEntry| {
        let (role, because) = match entry.role {
            Role::Candidate => ("candidate", None),
            Role::Baseline { because } => ("baseline", Some(because)),
            Role::Oracle => ("oracle", None),
        };
        let missing = (entry.make)(&cpu).err().map(|refusal| refusal.to_string());
        Kernel { kernel: entry.id, family: entry.family, role, because, missing }
    };
    let kernels = table().iter().map(kernel).collect();
    let answer = Kernels { cpu: cpu.name.clone(), isa: cpu.tier().to_string(), kernels };
    args.output.print(&answer, out)
}

impl Answer for Kernels {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new("kernel | family | role | on this machine");
        for Kernel { kernel, family, role, because, missing } in &self.kernels {
            let role = because.map_or(role.to_string(), |because| format!("{role}: {because}"));
            let here = missing.as_ref().map_or("yes".to_string(), |reason| format!("no: {reason}"));
            table.row(&[kernel, family, &role, &here]);
        }
        table.fold(width)
    }
}
