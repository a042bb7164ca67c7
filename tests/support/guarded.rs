//! A kernel in memory without a byte around its operands.

use std::iter::zip;

use kernels::verify::{Expected, over_scales};
use kernels::{Buffer, Io, Team, Tuning};

use crate::memory::{place, source};
use crate::{Case, Random, Subject, random_filter};

impl Subject {
    /// Runs a packed case in all formats that the kernel takes, with random values. Each operand has a
    /// buffer of its own that ends with it: where [`kernels::memory::guard`] is on, a kernel that reads or
    /// writes beyond one ends the process. Results are not compared, so that large problems take no time.
    pub fn touch(&self, case: &Case, tuning: &Tuning, workers: usize) {
        let problem = &case.problem;
        let mut random = Random::of(&problem.to_string());
        let src = random.values(problem.src().elements(), 0.0, 1.0);
        let dims = problem.filter_dims();
        let filters: Vec<_> = dims.into_iter().map(|dims| random_filter(&mut random, dims)).collect();
        let output = Expected { values: vec![1.0], magnitude: 1.0, depth: 1, largest: [1.0; 2] };
        let outputs = vec![output; problem.dst().len()];
        for formats in self.kernel.formats(problem, tuning) {
            let context = || format!("{} on {case}, tuning {tuning}", self.row.id);
            let (src, filters) = over_scales(problem, &src, &filters, &formats, &outputs);
            let step = self.kernel.prepare(problem, tuning, &formats, &filters);
            let step = step.unwrap_or_else(|refusal| panic!("{}: {refusal}", context()));
            let (src, src_at) = source(case, formats.src, &src, 0);
            let dst = problem.dst().into_iter().map(|shape| {
                let (placed, len) = place(&[shape], formats.dst.dtype, case.halo, case.layout, 0);
                (Buffer::zeroed(len), placed[0])
            });
            let dst: Vec<_> = dst.collect();
            let scratch = Buffer::zeroed(step.scratch_of_team(workers));
            let views = dst.iter().map(|(buffer, at)| buffer.view_mut(at).images(case.images));
            let io = Io::new(src.view(&src_at).images(case.images), views);
            let mut team = Team::new(workers);
            let team = team.open();
            std::thread::scope(|scope| {
                let join = |place: usize| team.join(place).run(&*step, &io, &scratch);
                for place in 1..workers {
                    scope.spawn(move || join(place));
                }
                join(0);
            });
            // All of the interior was written: the memory was poisoned with NaN before.
            for (segment, (buffer, at)) in zip(0.., &dst) {
                let values = buffer.read_pixel(at, [case.images - 1, at.shape.h - 1, at.shape.w - 1]);
                let is_finite = values.iter().all(|value| value.is_finite());
                assert!(is_finite, "{}: segment {segment}: found {values:?}", context());
            }
        }
    }
}
