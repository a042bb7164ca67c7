//! `tuner list`: the kernels.

use std::io::Write;

use engine::util::error::Failure;
use kernels::{Role, Tier, table};

use crate::cli::args::cpu;
use crate::report::table::Table;

pub(crate) fn list(isa: Option<Tier>, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = cpu(isa);
    let mut rows = Table::new(&["kernel", "family", "role", "on this machine"]);
    for row in table() {
        let role = match row.role {
            Role::Candidate => "candidate".to_string(),
            Role::Baseline { because } => format!("baseline: {because}"),
            Role::Oracle => "oracle".to_string(),
        };
        let here = (row.make)(&cpu).map_or_else(|refusal| format!("no: {refusal}"), |_| "yes".to_string());
        rows.row([row.id.to_string(), row.family.to_string(), role, here]);
    }
    write!(out, "{rows}")?;
    Ok(())
}
