//! `tuner shapes`: the problems of a model.

use std::io::Write;

use engine::network::graph::Graph;
use engine::network::model::Model;
use engine::util::error::Failure;
use kernels::problem::{PoolKind, Problem};

use crate::report::table::Table;

pub(crate) fn shapes(name: &str, batch: usize, out: &mut dyn Write) -> Result<(), Failure> {
    let model = Model::by_name(name, None, None)?;
    let graph = Graph::new(&model, batch, PoolKind::Average);
    let mut rows = Table::new(&["problem", "x", "output", "M multiply-adds", "layers"]);
    let (mut convs, mut distinct, mut total) = (0, 0, 0);
    for (problem, steps) in graph.problems() {
        let Problem::Conv(conv) = &problem else { continue };
        let work = conv.multiply_adds() * steps.len() as u64;
        (convs, distinct, total) = (convs + steps.len(), distinct + 1, total + work);
        let layers: Vec<String> = steps.iter().map(|&s| graph.steps[s].layers.join(" ")).collect();
        rows.row([
            problem.to_string(),
            steps.len().to_string(),
            problem.dst()[0].to_string(),
            format!("{:.1}", work as f64 / 1e6),
            layers.join(" "),
        ]);
    }
    write!(out, "{rows}")?;
    writeln!(
        out,
        "\n{convs} convolutions, {distinct} distinct problems, {:.1} M multiply-adds",
        total as f64 / 1e6
    )?;
    Ok(())
}
