//! Types of activations: which are allowed, and which each tensor of a graph has.
//!
//! All that write a tensor must write one type, and all that read it read that one; conversions are what
//! kernels do on the way into registers and out of them, so that a kernel from bf16 to f32 is a candidate of its
//! own. The least time over a graph is found exactly: its steps are taken in order, and for every way to type
//! the tensors that are still to be read or written the fastest way there is kept. Few tensors are alive at a
//! time, so that few ways are.

use std::collections::HashMap;

use kernels::kernel::{Kernel, Tuning};
use kernels::problem::Problem;
use kernels::tensor::{Dtype, Formats};

use crate::network::choice::Choice;
use crate::network::graph::Graph;

/// The types that a plan may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 alone.
    F32,
    /// Lower ones too.
    Bf16,
}

impl Precision {
    /// What a bound on the error of the features allows: nothing below f32, unless it is looser than that
    /// of f32.
    pub fn within(error: f64) -> Self {
        if error > F32_ERROR { Self::Bf16 } else { Self::F32 }
    }

    /// The formats of a kernel that are allowed.
    pub fn formats(self, kernel: &dyn Kernel, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let mut list = kernel.formats(problem, tuning);
        if self == Self::F32 {
            let rounds = kernel.numerics(problem, tuning).rounding != Dtype::F32;
            list.retain(|formats| !rounds && pair(formats) == [Dtype::F32; 2]);
        }
        list
    }
}

/// Types that a kernel reads and writes.
pub fn pair(formats: &Formats) -> [Dtype; 2] {
    [formats.src.dtype, formats.dst.dtype]
}

/// A step that does not agree with others on the type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The step.
    pub step: usize,
    /// It reads the tensor; else it writes it.
    pub reads: bool,
    /// Its type.
    pub found: Dtype,
    /// That of the steps before it.
    pub expected: Dtype,
}

/// The type of each tensor by choices.
///
/// # Errors
/// The first step that does not agree with those before it.
pub fn of_tensors(graph: &Graph, choices: &[Choice]) -> Result<Vec<Dtype>, Disagreement> {
    let mut types: Vec<Option<Dtype>> = vec![None; graph.tensors.len()];
    for (index, (step, choice)) in graph.steps.iter().zip(choices).enumerate() {
        let [src, dst] = pair(&choice.formats);
        let written = step.dst.iter().map(|slice| (slice.tensor, false, dst));
        for (tensor, reads, found) in [(step.src.tensor, true, src)].into_iter().chain(written) {
            let expected = *types[tensor].get_or_insert(found);
            if expected != found {
                return Err(Disagreement { step: index, reads, found, expected });
            }
        }
    }
    Ok(types.into_iter().map(|dtype| dtype.unwrap_or(Dtype::F32)).collect())
}

/// Tensors of bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Set([u64; 4]);

impl Set {
    const ROOM: usize = 256;

    fn with(mut self, tensor: usize, dtype: Dtype) -> Self {
        let bit = 1 << (tensor % 64);
        match dtype {
            Dtype::F32 => self.0[tensor / 64] &= !bit,
            Dtype::Bf16 => self.0[tensor / 64] |= bit,
        }
        self
    }

    fn get(&self, tensor: usize) -> Dtype {
        if self.0[tensor / 64] >> (tensor % 64) & 1 == 1 { Dtype::Bf16 } else { Dtype::F32 }
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

/// The types of tensors that cost least together; `cost` is what a step costs that reads one type and writes
/// another, none if nothing does. None if there is no way, or there are too many tensors.
pub fn cheapest(graph: &Graph, cost: impl Fn(usize, [Dtype; 2]) -> Option<f64>) -> Option<Vec<Dtype>> {
    const BOTH: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];
    let count = graph.tensors.len();
    if count > Set::ROOM {
        return None;
    }
    let touches = |step: usize, tensor: usize| graph.steps[step].uses(tensor);
    let all = 0..graph.steps.len();
    let last: Vec<Option<usize>> =
        (0..count).map(|tensor| all.clone().rev().find(|&step| touches(step, tensor))).collect();
    let mut known = vec![false; count];
    let mut ways = vec![(Set::default(), 0.0)];
    for (index, step) in graph.steps.iter().enumerate() {
        let mut next: Vec<(Set, f64)> = Vec::new();
        let mut place: HashMap<Set, usize> = HashMap::new();
        let mut alive = Set::default();
        for (tensor, last) in last.iter().enumerate() {
            if last.is_some_and(|last| last > index) {
                alive = alive.with(tensor, Dtype::Bf16);
            }
        }
        for (types, seconds) in ways {
            for [src, dst] in BOTH.into_iter().flat_map(|src| BOTH.map(|dst| [src, dst])) {
                let fits = |tensor: usize, dtype| !known[tensor] || types.get(tensor) == dtype;
                if !fits(step.src.tensor, src) || !step.dst.iter().all(|slice| fits(slice.tensor, dst)) {
                    continue;
                }
                let Some(own) = cost(index, [src, dst]) else { continue };
                let written =
                    |types: Set, slice: &crate::network::graph::Slice| types.with(slice.tensor, dst);
                let types = step.dst.iter().fold(types.with(step.src.tensor, src), written);
                let seconds = seconds + own;
                match place.entry(types.and(alive)) {
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(next.len());
                        next.push((types, seconds));
                    }
                    std::collections::hash_map::Entry::Occupied(entry) => {
                        let way = &mut next[*entry.get()];
                        if seconds < way.1 {
                            *way = (types, seconds);
                        }
                    }
                }
            }
        }
        known[step.src.tensor] = true;
        step.dst.iter().for_each(|slice| known[slice.tensor] = true);
        ways = next;
    }
    let (types, _) = ways.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((0..count).map(|tensor| types.get(tensor)).collect())
}

/// Bound on the error of the features where nothing else is asked: f32 arithmetic.
pub const F32_ERROR: f64 = 1e-5;

/// Bound where bf16 is asked for.
pub const BF16_ERROR: f64 = 1e-2;

#[cfg(test)]
mod tests {
    use kernels::problem::PoolKind;

    use super::*;
    use crate::network::model::Model;
    use crate::util::random::unit;

    /// Costs of a step: none for some pairs.
    fn cost(seed: u64, step: usize, [src, dst]: [Dtype; 2]) -> Option<f64> {
        let which = 2 * (src == Dtype::Bf16) as u64 + (dst == Dtype::Bf16) as u64;
        let value = unit(seed, step as u64, which);
        (which == 0 || value > 0.2).then_some(value)
    }

    fn sum(graph: &Graph, seed: u64, types: &[Dtype]) -> Option<f64> {
        let of = |(index, step): (usize, &crate::network::graph::Step)| {
            let dst = types[step.dst[0].tensor];
            let agree = step.dst.iter().all(|slice| types[slice.tensor] == dst);
            cost(seed, index, [types[step.src.tensor], dst]).filter(|_| agree)
        };
        graph.steps.iter().enumerate().map(of).sum()
    }

    #[test]
    fn the_cheapest_types_are_the_best_of_all() {
        for block in ["mixed0", "mixed9"] {
            let graph = Graph::new(&Model::block(block).expect("a block"), 1, PoolKind::Average);
            let count = graph.tensors.len();
            assert!(count <= 12, "{count} tensors");
            for seed in 0..20 {
                let found = cheapest(&graph, |step, pair| cost(seed, step, pair)).expect("f32 is a way");
                let all = (0..1u64 << count).filter_map(|bits| {
                    let types: Vec<Dtype> = (0..count)
                        .map(|t| if bits >> t & 1 == 1 { Dtype::Bf16 } else { Dtype::F32 })
                        .collect();
                    sum(&graph, seed, &types)
                });
                let best = all.min_by(f64::total_cmp).expect("f32 is a way");
                let own = sum(&graph, seed, &found).expect("the types have costs");
                assert!((own - best).abs() < 1e-9, "{block}, seed {seed}: {own} for {best}");
            }
        }
    }

    #[test]
    fn where_nothing_is_gained_all_is_f32() {
        let graph = Graph::new(&Model::inception_v3(Some(10)), 1, PoolKind::Average);
        let types = cheapest(&graph, |_, _| Some(1.0)).expect("a way");
        assert!(types.iter().all(|dtype| *dtype == Dtype::F32));
        let only_f32 = |_, pair| (pair == [Dtype::F32; 2]).then_some(1.0);
        assert!(cheapest(&graph, only_f32).is_some());
        assert_eq!(cheapest(&graph, |_, _| None), None);
    }

    #[test]
    fn lower_types_are_for_bounds_that_are_looser_than_that_of_f32() {
        assert_eq!(Precision::within(1e-6), Precision::F32);
        assert_eq!(Precision::within(F32_ERROR), Precision::F32);
        assert_eq!(Precision::within(1e-2), Precision::Bf16);
    }
}
