//! Convolution, BatchNorm and ReLU as three passes over memory.
//!
//! ```text
//! phase 0: y = direct(x, weights)         the filter as it is in the file
//! phase 1: y = y * scale + shift          BatchNorm, a channel at a time
//! phase 2: y = max(y, 0)
//! ```
//!
//! The convolution is that of [`super::direct`]: they differ by what fusing gains.

use std::ops::Range;

use super::direct::{Direct, PreparedDirect};
use super::{
    Buffer, Cpu, Format, Formats, Io, Isa, Kernel, Prepared, Problem, Request, Scratch, Signature, Tuning,
    Unsupported, ViewMut, round_up,
};
use crate::filter::{Filter, Folded};
use crate::gemm::multiply::Single;
use crate::gemm::panels::Panels;
use crate::problem::Epilogue;
use crate::vector::{load_first, store_first};

pub struct Unfused<I> {
    isa: I,
    direct: Direct<I>,
}

impl<I: Isa> Unfused<I> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        let isa = I::new(cpu)?;
        Ok(Box::new(Self { isa, direct: Direct::new(isa, Single) }))
    }
}

impl<I: Isa> Kernel for Unfused<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        self.direct.supports(problem)
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        self.direct.tunings(problem)
    }

    fn formats(&self, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let all = self.direct.formats(problem, tuning);
        all.into_iter().filter(|formats| formats.dst == Format::F32).collect()
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let mut conv = request.problem.as_conv()?.clone();
        let epilogues: Vec<Epilogue> = conv.segments.iter().map(|s| s.epilogue).collect();
        for segment in &mut conv.segments {
            segment.epilogue = Epilogue::NONE;
        }
        let plain: Vec<Folded> = request.filters.iter().map(Filter::unfolded).collect();
        let panels = Panels::pack(&conv.segments, I::F32_LANES, request.tuning("vectors"), &plain);
        Ok(Box::new(PreparedUnfused {
            isa: self.isa,
            signature: request.signature(),
            conv: self.direct.with_panels(&conv, request, panels),
            norms: request.filters.iter().zip(epilogues).map(|(f, e)| Norm::new(f, e)).collect(),
        }))
    }
}

/// The passes that follow the convolution of one segment.
struct Norm {
    scale: Buffer,
    shift: Buffer,
    relu: bool,
}

impl Norm {
    fn new(filter: &Filter, epilogue: Epilogue) -> Self {
        let k = filter.dims[3];
        let (mut scale, mut shift) = (Buffer::zeroed(round_up(k)), Buffer::zeroed(round_up(k)));
        for k in 0..k {
            let (a, b) = filter.scale_shift(k);
            scale.as_mut_slice()[k] = a as f32;
            shift.as_mut_slice()[k] = if epilogue.bias { b as f32 } else { 0.0 };
        }
        Self { scale, shift, relu: epilogue.relu }
    }
}

struct PreparedUnfused<I> {
    isa: I,
    signature: Signature,
    conv: PreparedDirect<I>,
    norms: Vec<Norm>,
}

impl<I: Isa> Prepared for PreparedUnfused<I> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        let passes = self.norms.iter().flat_map(|norm| [&norm.scale, &norm.shift]);
        self.conv.packed().into_iter().chain(passes).collect()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        let passes = self.norms.iter_mut().flat_map(|norm| [&mut norm.scale, &mut norm.shift]);
        self.conv.packed_mut().into_iter().chain(passes).collect()
    }

    fn phase_count(&self) -> usize {
        3
    }

    /// Phases 1 and 2: an output row of all segments.
    fn units(&self, phase: usize, n: usize) -> usize {
        if phase == 0 { self.conv.units(0, n) } else { n * self.signature.dst[0].h }
    }

    unsafe fn run(&self, phase: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        if phase == 0 {
            // SAFETY: the promises of the caller hold for the convolution alone.
            return unsafe { self.conv.run(0, units, io, scratch) };
        }
        for (segment, norm) in self.norms.iter().enumerate() {
            let dst = io.dst(segment);
            self.isa.vectorize(Pass { isa: self.isa, norm, dst, rows: units.clone(), relu: phase == 2 });
        }
    }
}

struct Pass<'a, I> {
    isa: I,
    norm: &'a Norm,
    dst: ViewMut<'a>,
    rows: Range<usize>,
    relu: bool,
}

impl<I: Isa> pulp::WithSimd for Pass<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, norm, dst, rows, relu } = self;
        if relu && !norm.relu {
            return;
        }
        let shape = dst.shape;
        let zero = isa.splat_f32s(0.0);
        for row in rows {
            for x in 0..shape.w {
                let pixel = dst.pixel::<f32>(row / shape.h, row % shape.h, x);
                for k in (0..shape.c).step_by(I::F32_LANES) {
                    let (at, left) = (pixel.wrapping_add(k), shape.c - k);
                    // SAFETY: `left` channels of a pixel of this unit; scale and shift are padded
                    // to whole vectors.
                    unsafe {
                        let y = load_first(isa, at, left);
                        let y = if relu {
                            isa.at_least(zero, y)
                        } else {
                            let scale = load_first(isa, norm.scale.as_ptr().add(k), left);
                            let shift = load_first(isa, norm.shift.as_ptr().add(k), left);
                            isa.fma(y, scale, shift)
                        };
                        store_first(isa, at, y, left);
                    }
                }
            }
        }
    }
}
