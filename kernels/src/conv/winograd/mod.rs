//! Winograd convolution: fewer multiplications by transforming square tiles of the image.
//!
//! F(m x m, r x r) computes `m * m` outputs from `n * n` products, `n = m + r - 1`, where a direct sum
//! takes `m * m * r * r`; a 3x3 kernel of stride 2 takes `n = 2m + 1` (see [`transform`]). The
//! engine is that of [`engine`].
//!
//! Transformed filters are `n * n / (r * r)` times as large as the filters and stream by for each block
//! of tiles: large tiles of large filters on small maps are limited by that, and the smallest error is
//! that of the smallest tile. So `m` is a tuning.

mod bf16;
mod engine;
pub mod separable;
mod tiling;
mod transform;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::filter::Filter;
use crate::gemm::register_block::sizes;
use crate::kernel::{Kernel, Numerics, Prepared, Tuning, validate};
use crate::problem::{Conv, Problem};
use crate::tensor::{Dtype, Formats};
use engine::PreparedTiles;
use tiling::Tiling;

/// Square kernels, for one instruction set.
#[derive(Debug)]
pub struct Winograd<I> {
    isa: I,
}

impl<I: Isa> Winograd<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

/// Refuses strides other than the given ones.
pub(super) fn require_stride(conv: &Conv, max: usize, expected: &'static str) -> Result<(), Unsupported> {
    let [a, b] = conv.window.stride;
    if a == b && a <= max {
        return Ok(());
    }
    Err(Unsupported::Shape { what: "stride", found: format!("{a}x{b}"), expected })
}

impl<I: Isa> Kernel for Winograd<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.as_conv()?;
        match conv.window.kernel {
            [3, 3] => require_stride(conv, 2, "1x1 or 2x2"),
            [5, 5] => require_stride(conv, 1, "1x1"),
            [r, s] => {
                Err(Unsupported::Shape { what: "kernel", found: format!("{r}x{s}"), expected: "3x3 or 5x5" })
            }
        }
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        tunings::<I>(conv, outputs(conv))
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        Formats::ALL.into()
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        numerics(problem, tuning)
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let Ok(conv) = problem.as_conv() else { return 0 };
        Tiling::new(conv, tuning.get("m")).multiply_adds()
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Unsupported> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = problem.as_conv()?;
        let tiling = Tiling::new(conv, tuning.get("m"));
        Ok(Box::new(PreparedTiles::new(self.isa, tiling, tuning, formats, filters)))
    }
}

/// Outputs of a tile that there is code for.
fn outputs(conv: &Conv) -> &'static [usize] {
    match (conv.window.kernel[0], conv.window.stride[0]) {
        (3, 1) => &[2, 3, 4, 5, 6],
        (3, _) => &[2, 3, 4],
        _ => &[2, 3, 4, 5],
    }
}

/// The claim of the transforms that a tuning chooses.
pub(super) fn numerics(problem: &Problem, tuning: &Tuning) -> Numerics {
    let growth = problem.as_conv().map_or(1.0, |conv| Tiling::new(conv, tuning.get("m")).growth());
    Numerics { rounding: Dtype::F32, growth }
}

/// Multiply-adds that cores do in the time in which they read one of the transformed weights from memory: 16 to 20 GB/s
/// a core beside 120 to 140 G multiply-adds, on Sapphire Rapids as on Zen 5.
const A_WEIGHT: u64 = 26;

/// Output tile, tile of the product, tiles in a block, and groups that panels are dealt in. The output tile of the
/// default is that with the least of multiply-adds and weights to read.
///
/// An output tile with no fewer products than a smaller one is left out: it has only drawbacks.
pub(super) fn tunings<I: Isa>(conv: &Conv, outputs: &[usize]) -> Vec<Tuning> {
    let widest = conv.segments.iter().map(|s| s.channels.div_ceil(I::F32_LANES)).max();
    let tilings: Vec<(usize, Tiling)> = outputs.iter().map(|&m| (m, Tiling::new(conv, m))).collect();
    let is_useful = |(m, tiling): &&(usize, Tiling)| {
        let work = tiling.multiply_adds();
        tilings.iter().all(|(less, other)| less >= m || other.multiply_adds() > work)
    };
    let mut useful: Vec<&(usize, Tiling)> = tilings.iter().filter(is_useful).collect();
    useful.sort_by_key(|(_, tiling)| tiling.multiply_adds() + A_WEIGHT * tiling.weights());
    let mut list = Vec::new();
    for &(m, ref tiling) in useful {
        let tiles = conv.batch * tiling.tiles();
        for &[pixels, vectors] in sizes::<I>().iter().filter(|size| matches!(size[1], 2 | 3)) {
            if vectors > 2 && Some(vectors) > widest {
                continue;
            }
            let mut blocks: Vec<usize> = [2, 3, 6].iter().map(|count| (count * pixels).min(tiles)).collect();
            blocks.dedup();
            for block in blocks {
                let groups: &[usize] =
                    if tiles.div_ceil(block) < 4 && widest > Some(vectors) { &[1, 4] } else { &[1] };
                list.extend(groups.iter().map(|&groups| {
                    Tuning::new([
                        ("m", m),
                        ("pixels", pixels),
                        ("vectors", vectors),
                        ("block", block),
                        ("groups", groups),
                    ])
                }));
            }
        }
    }
    list
}
