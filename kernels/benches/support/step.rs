//! Kernels ready to run, on made-up data.

use kernels::{
    BatchNorm, Buffer, Cpu, Filter, Formats, Io, Kernel, Prepared, Problem, Role, Tensor, run_alone,
    scratch_for, table,
};

/// Repeating values in `[-1, 1)`.
pub fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..count).map(value).collect()
}

/// Filters with a BatchNorm, for each of a problem's segments.
pub fn filters(problem: &Problem) -> Vec<Filter> {
    let filter = |dims: [usize; 4]| {
        let (beta, variance) = (values(dims[3]), vec![1.0; dims[3]]);
        let norm = BatchNorm { gamma: None, mean: beta.clone(), beta, variance, epsilon: 1e-3 };
        Filter { norms: vec![norm], ..Filter::new(dims, values(dims.iter().product())) }
    };
    problem.filter_dims().into_iter().map(filter).collect()
}

/// A kernel ready to run.
pub struct Step {
    prepared: Box<dyn Prepared>,
    src: Tensor,
    dst: Vec<Tensor>,
    scratch: Buffer,
}

impl Step {
    /// With the kernel's default tuning and its first formats.
    pub fn new(kernel: &dyn Kernel, problem: &Problem) -> Self {
        let tuning = &kernel.tunings(problem)[0];
        Self::with_formats(kernel, problem, kernel.formats(problem, tuning)[0])
    }

    /// With the kernel's default tuning.
    pub fn with_formats(kernel: &dyn Kernel, problem: &Problem, formats: Formats) -> Self {
        let tuning = &kernel.tunings(problem)[0];
        let filters = filters(problem);
        let prepared = kernel
            .prepare(problem, tuning, &formats, &filters)
            .unwrap_or_else(|refusal| panic!("{problem}: {refusal}"));
        let shape = problem.src();
        let mut src = Tensor::new(shape, &formats.src);
        src.fill_nhwc(&values(shape.elements()));
        Self {
            scratch: scratch_for(&*prepared, 1),
            prepared,
            src,
            dst: problem.dst().into_iter().map(|shape| Tensor::new(shape, &formats.dst)).collect(),
        }
    }

    pub fn run(&mut self) {
        let io = Io::new(self.src.view(), self.dst.iter_mut().map(Tensor::view_mut));
        run_alone(&*self.prepared, &io, &self.scratch);
    }

    /// Bytes that a run reads and writes at least: source, destinations and packed weights.
    pub fn bytes(&self) -> u64 {
        let tensors = std::iter::once(&self.src).chain(&self.dst).map(|tensor| tensor.as_slice().len());
        let packed = self.prepared.packed().into_iter().map(|buffer| buffer.len());
        (tensors.chain(packed).sum::<usize>() * size_of::<f32>()) as u64
    }
}

/// Every kernel of the table that this processor has, but the oracle.
pub fn kernels() -> Vec<(&'static str, &'static str, Box<dyn Kernel>)> {
    let cpu = Cpu::detect();
    let candidates = table().iter().filter(|row| row.role != Role::Oracle);
    candidates.filter_map(|row| Some((row.id, row.family, (row.make)(&cpu).ok()?))).collect()
}

/// Puts the caches to other use, as the rest of a network does between two runs of a step.
pub fn evict(other: &mut [f32]) {
    other.iter_mut().step_by(16).for_each(|value| *value += 1.0);
    std::hint::black_box(other);
}

/// Elements that fill all caches.
pub const CACHES: usize = 16 << 20;
