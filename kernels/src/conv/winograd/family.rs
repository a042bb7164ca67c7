//! What the kernels of all windows share: tunings, and preparing.

use std::marker::PhantomData;

use super::engine::PreparedTransform;
use super::tiling::Tiling;
use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::gemm::register_block::sizes;
use crate::kernel::{Kernel, Numerics, Prepared, Request, Tuning};
use crate::problem::{Conv, Problem, Window};
use crate::tensor::{Dtype, Formats};

/// The windows that a kernel takes.
pub trait Geometry: Send + Sync + 'static {
    /// Whether it takes a window, and if not, why not.
    fn supports(window: &Window) -> Result<(), Unsupported>;

    /// Sizes `m` of output tiles that [`super::engine`] has code for.
    fn outputs(window: &Window) -> &'static [usize];
}

/// Refuses strides that differ or are larger than `max`.
pub fn require_stride(window: &Window, max: usize, expected: &'static str) -> Result<(), Unsupported> {
    let [a, b] = window.stride;
    if a == b && a <= max {
        return Ok(());
    }
    Err(Unsupported::Shape { what: "stride", found: format!("{a}x{b}"), expected })
}

/// The kernel, for one instruction set and some windows.
#[derive(Debug)]
pub struct TransformKernel<I, G> {
    isa: I,
    geometry: PhantomData<G>,
}

impl<I: Isa, G: Geometry> TransformKernel<I, G> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)?, geometry: PhantomData }))
    }
}

/// The tiling that a tuning chooses.
fn tiling(problem: &Problem, tuning: &Tuning) -> Result<Tiling, Unsupported> {
    problem.as_conv().map(|conv| Tiling::new(conv, tuning.get("m")))
}

impl<I: Isa, G: Geometry> Kernel for TransformKernel<I, G> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        G::supports(&problem.as_conv()?.window)
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        tunings(conv, G::outputs(&conv.window), I::F32_LANES, sizes::<I>())
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        Formats::ALL.into()
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let growth = tiling(problem, tuning).map_or(1.0, |tiling| tiling.growth());
        Numerics { rounding: Dtype::F32, growth }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        tiling(problem, tuning).map_or(0, |tiling| tiling.multiply_adds())
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let tiling = tiling(request.problem, request.tuning)?;
        Ok(Box::new(PreparedTransform::new(self.isa, tiling, request)))
    }
}

/// Multiply-adds that a core does while it reads one of the transformed weights from memory. It is
/// 120 to 140 G multiply-adds a second over 4 to 5 G weights a second.
const A_WEIGHT: u64 = 26;

/// Tilings by outputs that are worth a measurement, those with the least of multiply-adds and
/// weights to read first. One with no fewer products than a smaller tile has only drawbacks.
fn tilings(conv: &Conv, outputs: &[usize]) -> Vec<(usize, Tiling)> {
    let all: Vec<(usize, Tiling)> = outputs.iter().map(|&m| (m, Tiling::new(conv, m))).collect();
    let work: Vec<(usize, u64)> = all.iter().map(|(m, tiling)| (*m, tiling.multiply_adds())).collect();
    let is_useful = |(m, tiling): &(usize, Tiling)| {
        work.iter().all(|(less, work)| less >= m || *work > tiling.multiply_adds())
    };
    let mut useful: Vec<(usize, Tiling)> = all.into_iter().filter(is_useful).collect();
    useful.sort_by_key(|(_, tiling)| tiling.multiply_adds() + A_WEIGHT * tiling.weights());
    useful
}

/// Outputs `m` of a tile along an axis, pixels and vectors of a register block, tiles in a block,
/// and groups that panels are dealt in.
fn tunings(conv: &Conv, outputs: &[usize], lanes: usize, sizes: &[[usize; 2]]) -> Vec<Tuning> {
    let widest = conv.segments.iter().map(|s| s.channels.div_ceil(lanes)).max();
    let fits = |vectors: usize| vectors == 2 || vectors == 3 && Some(vectors) <= widest;
    let mut list = Vec::new();
    for (m, tiling) in tilings(conv, outputs) {
        let tiles = conv.batch * tiling.tiles();
        for &[pixels, vectors] in sizes.iter().filter(|size| fits(size[1])) {
            let mut blocks: Vec<usize> = [2, 3, 6].iter().map(|count| (count * pixels).min(tiles)).collect();
            blocks.dedup();
            for block in blocks {
                let few = tiles.div_ceil(block) < 4 && widest > Some(vectors);
                let groups: &[usize] = if few { &[1, 4] } else { &[1] };
                list.extend(groups.iter().map(|&groups| {
                    let (pixels, vectors) = (("pixels", pixels), ("vectors", vectors));
                    Tuning::new([("m", m), pixels, vectors, ("block", block), ("groups", groups)])
                }));
            }
        }
    }
    list
}
