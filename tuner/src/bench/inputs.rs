//! Source and filters of a problem whose candidates are timed.

use engine::util::unit;
use kernels::{BatchNorm, Filter, Problem};

pub struct Inputs {
    /// `[n, h, w, c]` values from 0 to 1, as after a ReLU.
    pub src: Vec<f32>,
    pub filters: Vec<Filter>,
}

impl Inputs {
    pub fn synthetic(problem: &Problem) -> Self {
        let value = |stream, i: usize| unit(7, stream, i as u64);
        let src = (0..problem.src().elements()).map(|i| value(0, i) as f32).collect();
        let filter = |(stream, dims): (usize, [usize; 4])| {
            let stream = 10 * (stream as u64 + 1);
            let range = |offset, lo: f64, hi: f64, count: usize| -> Vec<f32> {
                (0..count).map(|i| (lo + (hi - lo) * value(stream + offset, i)) as f32).collect()
            };
            let [r, s, c, channels] = dims;
            let norm = BatchNorm {
                gamma: None,
                beta: range(1, -0.1, 0.1, channels),
                mean: range(2, -0.1, 0.1, channels),
                variance: range(3, 0.75, 1.25, channels),
                epsilon: 1e-3,
            };
            let limit = (6.0 / (r * s * c) as f64).sqrt();
            let weights = range(0, -limit, limit, dims.iter().product());
            Filter { norms: vec![norm], ..Filter::new(dims, weights) }
        };
        let filters = problem.filter_dims().into_iter().enumerate().map(filter).collect();
        Self { src, filters }
    }
}
