//! `tuner shapes`: the problems of a model.

use std::io::Write;

use engine::network::Graph;
use engine::network::models::{DEFAULT, networks_and_blocks};
use engine::{Model, ModelShape};
use kernels::{Conv, PoolKind, Problem};
use serde::Serialize;

use crate::cli::{Answer, Failure, ImageSize, OutputArgs, of_size, size};
use crate::report::{Table, count, layers_text, wrap};

#[derive(Clone, Debug, clap::Args)]
pub struct ShapesArgs {
    #[arg(
        long, value_name = "MODEL", default_value = DEFAULT,
        help = format!("{}, or conv2d_bn with --shape", networks_and_blocks())
    )]
    model: String,
    /// Shape of a conv2d_bn, like n1h17w17c768k192r1s7
    #[arg(long, conflicts_with = "size")]
    shape: Option<Conv>,
    /// Height and width of the images of a network, from 75 up
    #[arg(long, value_name = "HxW", value_parser = size)]
    size: Option<ImageSize>,
    /// Images of one inference; 1, or those of the shape, by default
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,
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
    let shape = args.shape.clone().map(|conv| ModelShape::Conv { conv, norms: 1 });
    let model = of_size(Model::by_name(&args.model, shape.as_ref(), None)?, args.size)?;
    let batch = args.batch.map(usize::from).or(args.shape.as_ref().map(|conv| conv.batch)).unwrap_or(1);
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
