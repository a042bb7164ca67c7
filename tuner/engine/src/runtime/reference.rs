//! The network in f64: what the features of a plan are compared with.

use kernels::verify::exact;
use kernels::{Dtype, Shape};

use crate::network::{Graph, Slice};
use crate::runtime::prepared::{PrepareError, PreparedNetwork, filters};
use crate::runtime::threads::Threads;
use crate::util::stats::relative_l2;
use crate::weights::Weights;
use crate::weights::synthetic;

/// Images and what the network makes of them in f64.
pub struct Reference {
    /// `[h, w, c]`.
    images: Vec<Vec<f32>>,
    /// The features of each, or the output where there are none.
    results: Vec<Vec<f64>>,
}

impl Reference {
    /// Runs the given images `[h, w, c]` through a graph in f64, a thread each; of the graph's
    /// batch only one image counts.
    pub fn of(
        graph: &Graph,
        weights: &Weights,
        threads: &Threads,
        images: Vec<Vec<f32>>,
    ) -> Result<Self, PrepareError> {
        let results = threads.map(&images, |image| result(graph, weights, image));
        Ok(Self { images, results: results.into_iter().collect::<Result<_, _>>()? })
    }

    /// As [`Self::of`], on three images of different kinds: rough (the built-in one), like a
    /// photograph, and plain.
    pub fn new(graph: &Graph, weights: &Weights, threads: &Threads) -> Result<Self, PrepareError> {
        let Shape { h, w, c, .. } = graph.tensors[0];
        let rough = synthetic::image(1, h, w, c, 0);
        Self::of(graph, weights, threads, vec![rough, synthetic::leaves(h, w, c), synthetic::plain(h, w, c)])
    }

    /// `[h, w, c]` values of each.
    pub fn images(&self) -> &[Vec<f32>] {
        &self.images
    }

    /// What the network makes of each image.
    pub fn results(&self) -> impl Iterator<Item = &[f64]> {
        self.results.iter().map(|result| &result[..])
    }

    /// The largest relative L2 error of a session's features, or output where there are none, and
    /// the image that has it; infinite where a result is no number.
    pub fn error(&self, session: &mut PreparedNetwork, threads: &Threads) -> (f64, &[f32]) {
        let errors = self.images.iter().zip(&self.results).map(|(image, result)| {
            session.run(threads, image, 1);
            let error = relative_l2(&session.result(1), result);
            (if error.is_nan() { f64::INFINITY } else { error }, &image[..])
        });
        errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one image")
    }
}

/// The features, or the output where there are none, of one image in f64.
fn result(graph: &Graph, weights: &Weights, image: &[f32]) -> Result<Vec<f64>, PrepareError> {
    let mut tensors: Vec<Vec<f64>> = vec![Vec::new(); graph.tensors.len()];
    tensors[0] = image.iter().map(|&x| x.into()).collect();
    let unscaled = vec![None; graph.tensors.len()];
    let wanted = graph.features.as_ref().unwrap_or(&graph.output);
    for (index, step) in graph.steps.iter().enumerate() {
        let src = values(graph, &tensors, &step.src);
        let outputs =
            exact(&step.problem.with_batch(1), &src, &filters(step, weights, Dtype::F32, &unscaled)?);
        for (slice, output) in step.dst.iter().zip(outputs) {
            let shape = graph.tensors[slice.tensor];
            let tensor = &mut tensors[slice.tensor];
            tensor.resize(shape.h * shape.w * shape.c, 0.0);
            let pixels = tensor.chunks_exact_mut(shape.c).zip(output.chunks_exact(slice.channels.len()));
            pixels.for_each(|(pixel, values)| pixel[slice.channels.clone()].copy_from_slice(values));
        }
        let is_read = |tensor| graph.steps[index + 1..].iter().any(|later| later.src.tensor == tensor);
        if step.src.tensor != wanted.tensor && !is_read(step.src.tensor) {
            tensors[step.src.tensor] = Vec::new();
        }
    }
    Ok(values(graph, &tensors, wanted))
}

fn values(graph: &Graph, tensors: &[Vec<f64>], slice: &Slice) -> Vec<f64> {
    let pixels = tensors[slice.tensor].chunks_exact(graph.tensors[slice.tensor].c);
    pixels.flat_map(|pixel| &pixel[slice.channels.clone()]).copied().collect()
}
