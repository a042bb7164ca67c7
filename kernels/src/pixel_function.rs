//! Kernels that compute the channels of a pixel from the channels of a pixel: all but the function.

#![allow(unsafe_code, reason = "vector code")]

use std::marker::PhantomData;
use std::ops::Range;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
use crate::memory::Scratch;
use crate::problem::Problem;
use crate::tensor::{View, ViewMut};

/// What is computed of each image, which has one pixel.
pub trait PixelFunction: Send + Sync + 'static {
    /// The problems that it is for, in refusals.
    const KIND: &'static str;

    fn takes(problem: &Problem) -> bool;

    /// Computes `channels` values, by the same operations whatever the width of the vectors.
    ///
    /// # Safety
    /// So many can be read from `x` and written to `y`.
    unsafe fn compute<I: Isa>(isa: I, x: *const f32, y: *mut f32, channels: usize);
}

pub struct PixelKernel<I, F> {
    isa: I,
    function: PhantomData<F>,
}

impl<I: Isa, F: PixelFunction> PixelKernel<I, F> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)?, function: PhantomData }))
    }
}

impl<I: Isa, F: PixelFunction> Kernel for PixelKernel<I, F> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        if F::takes(problem) { Ok(()) } else { Err(Unsupported::Kind(F::KIND)) }
    }

    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { reproducible: I::FUSES, ..Numerics::DIRECT_F32 }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let (isa, signature) = (self.isa, request.signature());
        Ok(Box::new(PreparedPixels::<I, F> { isa, signature, function: PhantomData }))
    }
}

struct PreparedPixels<I, F> {
    isa: I,
    signature: Signature,
    function: PhantomData<F>,
}

impl<I: Isa, F: PixelFunction> Prepared for PreparedPixels<I, F> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// An image.
    fn units(&self, _: usize, n: usize) -> usize {
        n
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, _: &mut Scratch) {
        let function = PhantomData::<F>;
        self.isa.vectorize(Run { isa: self.isa, src: io.src, dst: io.dst(0), images: units, function })
    }
}

struct Run<'a, I, F> {
    isa: I,
    src: View<'a>,
    dst: ViewMut<'a>,
    images: Range<usize>,
    function: PhantomData<F>,
}

impl<I: Isa, F: PixelFunction> pulp::WithSimd for Run<'_, I, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, src, dst, images, .. } = self;
        for n in images {
            let (x, y) = (src.pixel::<f32>(n, 0, 0), dst.pixel::<f32>(n, 0, 0));
            // SAFETY: the channels of a pixel of the source; of the destination, this unit's.
            unsafe { F::compute(isa, x, y, src.shape.c) };
        }
    }
}
