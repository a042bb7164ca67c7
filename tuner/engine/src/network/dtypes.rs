//! Types of activations: which are allowed, and which each tensor of a graph has.
//!
//! All steps that write a tensor write the same type, and all steps that read it read that type.
//! Kernels convert on the way into registers and out of them, so that a kernel from bf16 to f32 is
//! another candidate than one from f32 to f32. What may be below zero is never u8.
//!
//! [`cheapest`] finds the types with the least time exactly, by dynamic programming over the steps
//! in order. After each step it keeps, for every combination of types of the tensors that later
//! steps use, the fastest typing of all tensors so far. Few tensors are in use at a time, so that
//! there are few combinations.

use std::collections::HashMap;

use kernels::{Dtype, Formats, Kernel, Problem, Tuning};

use crate::network::choice::Choice;
use crate::network::graph::{Graph, IMAGES, Step, Weight};

/// The types that a plan may use: f32 alone, bf16 too, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    F32,
    Bf16,
    Int8,
}

impl Precision {
    /// What a bound on the error of the features allows: bf16 only if the bound is larger than
    /// [`F32_ERROR`], u8 only if it is larger than [`BF16_ERROR`].
    pub fn within(error: f64) -> Self {
        if error > BF16_ERROR {
            Self::Int8
        } else if error > F32_ERROR {
            Self::Bf16
        } else {
            Self::F32
        }
    }

    /// Whether tensors and products may have a type.
    pub fn allows(self, dtype: Dtype) -> bool {
        let least = match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::U8 => Self::Int8,
        };
        self >= least
    }

    /// Bytes of the smallest type.
    pub fn bytes(self) -> usize {
        DTYPES
            .into_iter()
            .filter(|dtype| self.allows(*dtype))
            .map(Dtype::bytes)
            .min()
            .unwrap_or(size_of::<f32>())
    }

    /// The formats of a kernel that are allowed.
    pub fn formats(self, kernel: &dyn Kernel, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let mut list = kernel.formats(problem, tuning);
        let rounding = kernel.numerics(problem, tuning).rounding;
        list.retain(|formats| {
            let mut types = [rounding].into_iter().chain(pair(formats));
            types.all(|dtype| self.allows(dtype))
                && (formats.dst.dtype != Dtype::U8 || !may_be_negative(problem))
        });
        list
    }
}

/// Whether outputs may be below zero, of inputs that are not. Those have no room in u8.
pub fn may_be_negative(problem: &Problem) -> bool {
    match problem {
        Problem::Conv(conv) => conv.segments.iter().any(|segment| !segment.epilogue.relu),
        Problem::Pool(pool) => pool.epilogue.bias && !pool.epilogue.relu,
        Problem::Softmax { .. } | Problem::Sigmoid { .. } => false,
    }
}

/// For each tensor, all that have scales if it has: those that pools read from it and write to it.
pub fn pooled(graph: &Graph, is_scaled: &mut [bool]) {
    for _ in 0..graph.tensors.len() {
        for step in graph.steps.iter().filter(|step| step.problem.as_pool().is_ok()) {
            let (src, dst) = (step.src.tensor, step.dst[0].tensor);
            let either = is_scaled[src] || is_scaled[dst];
            (is_scaled[src], is_scaled[dst]) = (either, either);
        }
    }
}

/// Which tensors may be u8: those that only convolutions with ranges and pools write, none of them
/// below zero, and that no pool shares its scales with others. Images, which may be below zero, are
/// not.
pub fn may_be_u8(graph: &Graph) -> Vec<bool> {
    let mut without_scales = vec![false; graph.tensors.len()];
    let mut is_signed = without_scales.clone();
    without_scales[IMAGES] = true;
    for step in &graph.steps {
        let is_pool = step.problem.as_pool().is_ok();
        let has_ranges = step.weights.iter().all(|weight| matches!(weight, Weight::Conv(_)));
        for slice in &step.dst {
            without_scales[slice.tensor] |= !(is_pool || step.problem.as_conv().is_ok() && has_ranges);
            is_signed[slice.tensor] |= may_be_negative(&step.problem);
        }
        // What is no sum of products of weights needs its inputs as they are.
        without_scales[step.src.tensor] |= !is_pool && step.problem.as_conv().is_err();
    }
    pooled(graph, &mut without_scales);
    without_scales.into_iter().zip(is_signed).map(|(without, signed)| !without && !signed).collect()
}

/// All types, f32 first.
pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::U8];

/// All pairs of what a step reads and what it writes, f32 on both sides first.
pub fn pairs() -> impl Iterator<Item = [Dtype; 2]> {
    DTYPES.into_iter().flat_map(|src| DTYPES.map(|dst| [src, dst]))
}

/// Types that a kernel reads and writes.
pub fn pair(formats: &Formats) -> [Dtype; 2] {
    [formats.src.dtype, formats.dst.dtype]
}

/// A step that reads or writes a tensor as another type, `found`, than the steps before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub step: usize,
    /// The step reads the tensor. Otherwise it writes it.
    pub reads: bool,
    pub found: Dtype,
    pub expected: Dtype,
}

/// The type of each tensor, as the choices for the steps have it, or the first step that does not
/// agree with those before it.
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

/// A type for each tensor, by its place in [`DTYPES`], in two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Types([u64; 8]);

impl Types {
    const ROOM: usize = 256;
    const BITS: usize = 2;
    const MASK: u64 = 3;

    fn place(tensor: usize) -> (usize, usize) {
        (tensor * Self::BITS / 64, tensor * Self::BITS % 64)
    }

    /// With a tensor that has had no type or this one.
    fn with(mut self, tensor: usize, dtype: Dtype) -> Self {
        let (word, bit) = Self::place(tensor);
        let number = DTYPES.into_iter().position(|one| one == dtype).unwrap_or(0);
        self.0[word] |= (number as u64) << bit;
        self
    }

    fn get(&self, tensor: usize) -> Dtype {
        let (word, bit) = Self::place(tensor);
        DTYPES[(self.0[word] >> bit & Self::MASK) as usize]
    }

    /// All bits of a tensor.
    fn with_all(mut self, tensor: usize) -> Self {
        let (word, bit) = Self::place(tensor);
        self.0[word] |= Self::MASK << bit;
        self
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

/// A typing of the tensors that the steps so far use, and what these steps cost.
type Typing = (Types, f64);

/// The types of all tensors with the least sum of costs. `cost` gives the cost of a step that reads
/// one type and writes another, or none if no kernel does. None if no typing has a cost, or there
/// are more than 256 tensors.
pub fn cheapest(graph: &Graph, cost: impl Fn(usize, [Dtype; 2]) -> Option<f64>) -> Option<Vec<Dtype>> {
    let count = graph.tensors.len();
    if count > Types::ROOM {
        return None;
    }
    let (used_later, may_be_u8) = (used_later(graph), may_be_u8(graph));
    let mut known = vec![false; count];
    let mut typings = vec![(Types::default(), 0.0)];
    for (index, step) in graph.steps.iter().enumerate() {
        let extended = typings
            .iter()
            .flat_map(|typing| extensions(typing, step, [&known, &may_be_u8], |pair| cost(index, pair)));
        typings = cheapest_of_each(extended, used_later[index]);
        known[step.src.tensor] = true;
        step.dst.iter().for_each(|slice| known[slice.tensor] = true);
    }
    let (types, _) = typings.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((0..count).map(|tensor| types.get(tensor)).collect())
}

/// For each step, all bits of the tensors that are used after it.
fn used_later(graph: &Graph) -> Vec<Types> {
    let mut sets = vec![Types::default(); graph.steps.len()];
    for (index, step) in graph.steps.iter().enumerate().skip(1).rev() {
        let used = step.dst.iter().chain([&step.src]).map(|slice| slice.tensor);
        sets[index - 1] = used.fold(sets[index], Types::with_all);
    }
    sets
}

/// A typing with each pair of types of one more step that agrees with it and has a cost.
fn extensions(
    &(types, seconds): &Typing,
    step: &Step,
    [known, may_be_u8]: [&[bool]; 2],
    cost: impl Fn([Dtype; 2]) -> Option<f64>,
) -> impl Iterator<Item = Typing> {
    pairs().filter_map(move |[src, dst]| {
        let fits = |tensor: usize, dtype| {
            (dtype != Dtype::U8 || may_be_u8[tensor]) && (!known[tensor] || types.get(tensor) == dtype)
        };
        if !fits(step.src.tensor, src) || !step.dst.iter().all(|slice| fits(slice.tensor, dst)) {
            return None;
        }
        let seconds = seconds + cost([src, dst])?;
        let read = types.with(step.src.tensor, src);
        Some((step.dst.iter().fold(read, |types, slice| types.with(slice.tensor, dst)), seconds))
    })
}

/// Of typings that agree on the tensors that are still used, the first of the cheapest; in the
/// order in which the first of each came.
fn cheapest_of_each(typings: impl Iterator<Item = Typing>, still_used: Types) -> Vec<Typing> {
    let mut list: Vec<Typing> = Vec::new();
    let mut place: HashMap<Types, usize> = HashMap::new();
    for typing in typings {
        let at = *place.entry(typing.0.and(still_used)).or_insert(list.len());
        match list.get_mut(at) {
            None => list.push(typing),
            Some(best) if typing.1 < best.1 => *best = typing,
            Some(_) => {}
        }
    }
    list
}

/// Default bound on the relative L2 error of the features: f32 arithmetic.
pub const F32_ERROR: f64 = 1e-5;

/// Bound on the relative L2 error of the features for bf16.
pub const BF16_ERROR: f64 = 1e-2;

/// Bound on the relative L2 error of the features for u8 with weights of 8 bits.
pub const INT8_ERROR: f64 = 5e-2;

#[cfg(test)]
mod tests {
    use kernels::PoolKind;

    use super::*;
    use crate::network::graph::Slice;
    use crate::network::model::Model;
    use crate::util::random::unit;

    /// Costs of a step: none for some pairs.
    fn cost(seed: u64, step: usize, [src, dst]: [Dtype; 2]) -> Option<f64> {
        let which = pairs().position(|pair| pair == [src, dst]).expect("a pair") as u64;
        let value = unit(seed, step as u64, which);
        (which == 0 || value > 0.2).then_some(value)
    }

    fn sum(graph: &Graph, seed: u64, types: &[Dtype]) -> Option<f64> {
        let mut each = types.iter().zip(may_be_u8(graph));
        if !each.all(|(dtype, may_be)| may_be || *dtype != Dtype::U8) {
            return None;
        }
        let of = |(index, step): (usize, &Step)| {
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
            for seed in 0..3 {
                let found = cheapest(&graph, |step, pair| cost(seed, step, pair)).expect("f32 is a typing");
                let all = (0..3usize.pow(count as u32)).filter_map(|digits| {
                    let dtype = |tensor| DTYPES[digits / 3usize.pow(tensor) % 3];
                    sum(&graph, seed, &(0..count as u32).map(dtype).collect::<Vec<_>>())
                });
                let best = all.min_by(f64::total_cmp).expect("f32 is a typing");
                let cost = sum(&graph, seed, &found).expect("the types have costs");
                assert!((cost - best).abs() < 1e-9, "{block}, seed {seed}: {cost} for {best}");
            }
        }
    }

    #[test]
    fn what_has_scales_and_no_sign_may_be_u8() {
        let block = Graph::new(&Model::block("mixed10").expect("a block"), 1, PoolKind::Average);
        let may = may_be_u8(&block);
        for step in &block.steps {
            // The images, and their mean, which would share their scales.
            let is_pool = step.problem.as_pool().is_ok();
            assert!(step.dst.iter().all(|slice| may[slice.tensor] != is_pool), "{:?}", step.layers);
        }
        assert!(!may[IMAGES]);
        let whole = Graph::new(&Model::inception_v3().with_classes(Some(10)), 1, PoolKind::Average);
        let may = may_be_u8(&whole);
        let is_of = |slice: &Slice| may[slice.tensor];
        let features = whole.features.as_ref().expect("features");
        assert!(is_of(features) && !is_of(&whole.output) && !may[IMAGES]);
        let no = may.iter().filter(|may| !**may).count();
        // The images, and what the dense layer and the softmax write.
        assert_eq!(no, 3);
    }

    #[test]
    fn where_nothing_is_gained_all_is_f32() {
        let graph = Graph::new(&Model::inception_v3().with_classes(Some(10)), 1, PoolKind::Average);
        let types = cheapest(&graph, |_, _| Some(1.0)).expect("a typing");
        assert!(types.iter().all(|dtype| *dtype == Dtype::F32));
        let only_f32 = |_, pair| (pair == [Dtype::F32; 2]).then_some(1.0);
        assert!(cheapest(&graph, only_f32).is_some());
        assert_eq!(cheapest(&graph, |_, _| None), None);
    }

    #[test]
    fn lower_types_are_for_bounds_that_are_looser_than_that_of_f32() {
        assert_eq!(Precision::within(1e-6), Precision::F32);
        assert_eq!(Precision::within(F32_ERROR), Precision::F32);
        assert_eq!(Precision::within(BF16_ERROR), Precision::Bf16);
        assert_eq!(Precision::within(INT8_ERROR), Precision::Int8);
        assert_eq!([Precision::F32, Precision::Bf16, Precision::Int8].map(Precision::bytes), [4, 2, 1]);
    }
}
