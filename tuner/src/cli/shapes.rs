//! `tuner shapes`: the problems of a model.

use std::io::Write;

use engine::Model;
use engine::network::Graph;
use engine::network::models::{DEFAULT, networks_and_blocks};
use kernels::{PoolKind, Problem};
use serde::Serialize;

use crate::cli::{Answer, Failure, OutputArgs};
use crate::report::{Table, count, layers_text, wrap};

#[derive(Clone, Debug, clap::Args)]
pub struct ShapesArgs {
    #[arg(long, default_value = DEFAULT, help = networks_and_blocks())]
    model: String,
    /// Images of one inference
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Problems {
    model: String,
    batch: usize,
    convolutions: usize,
    /// Of all convolutions.
    multiply_adds: u64,
    problems: Vec<Shape>,
}

#[derive(Debug, Serialize)]
struct Shape {
    problem: String,
    /// How often it occurs.
    count: usize,
    /// `[n, h, w, c]`, as text.
    output: String,
    /// As often as it occurs.
    multiply_adds: u64,
    layers: Vec<String>,
}

pub fn shapes(args: &ShapesArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let model = Model::by_name(&args.model, None, None)?;
    let batch = args.batch.into();
    let graph = Graph::new(&model, batch, PoolKind::Average);
    let mut problems = Vec::new();
    for (problem, steps) in graph.problems() {
        let Problem::Conv(conv) = &problem else { continue };
        problems.push(Shape {
            problem: problem.to_string(),
            count: steps.len(),
            output: problem.dst()[0].to_string(),
            multiply_adds: conv.multiply_adds() * steps.len() as u64,
            layers: steps.iter().flat_map(|&s| graph.steps[s].layers.clone()).collect(),
        });
    }
    let answer = Problems {
        model: model.to_string(),
        batch,
        convolutions: problems.iter().map(|shape| shape.count).sum(),
        multiply_adds: problems.iter().map(|shape| shape.multiply_adds).sum(),
        problems,
    };
    args.output.print(&answer, out)
}

impl Answer for Problems {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new("problem | x | output | M multiply-adds | layers");
        for Shape { problem, count, output, multiply_adds, layers } in &self.problems {
            let millions = format!("{:.1}", *multiply_adds as f64 / 1e6);
            table.row(&[problem, count, output, &millions, &layers_text(layers)]);
        }
        let (all, distinct) = (self.convolutions, self.problems.len());
        let (all, distinct) = (count(all, "convolution"), count(distinct, "distinct problem"));
        let sum = format!("{all}, {distinct}, {:.1} M multiply-adds", self.multiply_adds as f64 / 1e6);
        format!("{}\n{}\n", table.fold(width), wrap(&sum, width, 2))
    }
}
