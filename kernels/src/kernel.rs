//! The traits that every implementation stands behind.

use std::fmt;
use std::ops::Range;

use crate::error::Unsupported;
use crate::filter::{Filter, Folded, Quantized, Rounded};
use crate::memory::{Buffer, Scratch, round_up};
use crate::problem::{MAX_SEGMENTS, Problem};
use crate::shape::Shape;
use crate::tensor::{Dtype, Formats, View, ViewMut};

/// Choices that a kernel leaves open, as named integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuning(Vec<(&'static str, usize)>);

impl Tuning {
    /// Names and values, in the order they are shown.
    pub fn new(values: impl Into<Vec<(&'static str, usize)>>) -> Self {
        Self(values.into())
    }

    /// The value of a name.
    ///
    /// # Panics
    /// If the name is not there.
    pub fn get(&self, name: &str) -> usize {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.unwrap_or_else(|| panic!("tuning {self} has no `{name}`")).1
    }

    /// Number of values that differ from another tuning.
    pub fn distance(&self, other: &Self) -> usize {
        self.0.iter().filter(|pair| !other.0.contains(pair)).count()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let parts: Vec<String> = self.iter().map(|(n, v)| format!("{n}={v}")).collect();
        f.write_str(if parts.is_empty() { "-".to_string() } else { parts.join(",") }.as_str())
    }
}

/// What a kernel promises about its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerics {
    /// Type that inputs and weights are rounded to before they are multiplied; of u8, inputs are
    /// that and weights have 8 bits and a sign.
    pub rounding: Dtype,
    /// RMS error as a multiple of that of a direct sum in f32.
    pub growth: f64,
    /// Each element is computed by the same operations in the same order, whatever the width of the
    /// vectors: its bits are those of any other kernel that says so, of all tiers with fused
    /// multiply-add.
    pub reproducible: bool,
}

impl Numerics {
    /// A direct sum in f32.
    pub const DIRECT_F32: Self = Self { rounding: Dtype::F32, growth: 1.0, reproducible: false };
}

/// An implementation. Stateless; holding one proves that its instructions are there.
pub trait Kernel: Send + Sync {
    /// Whether it computes the problem, and if not, why not.
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported>;

    /// The choices it leaves open for a problem it supports; the first is the default.
    fn tunings(&self, _problem: &Problem) -> Vec<Tuning> {
        vec![Tuning::default()]
    }

    /// The formats it takes, f32 in and out first: a source with at least that halo, and
    /// destinations of that type, each with any halo.
    fn formats(&self, _problem: &Problem, _tuning: &Tuning) -> Vec<Formats> {
        vec![Formats::F32]
    }

    /// Its error, as a formula of the tolerance needs it.
    fn numerics(&self, _problem: &Problem, _tuning: &Tuning) -> Numerics {
        Numerics::DIRECT_F32
    }

    /// Multiply-adds that it executes for the problem; a fast algorithm needs fewer than direct.
    fn multiply_adds(&self, problem: &Problem, _tuning: &Tuning) -> u64 {
        problem.flops() / 2
    }

    /// Packs the filters, whose number and dimensions are [`Problem::filter_dims`].
    ///
    /// # Errors
    /// What the kernel does not take, or what does not fit together.
    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Unsupported> {
        check_segments(problem)?;
        self.supports(problem)?;
        if !self.tunings(problem).contains(tuning) {
            return Err(Unsupported::Tuning(tuning.to_string()));
        }
        check_formats(formats, &self.formats(problem, tuning))?;
        check_filters(filters, &problem.filter_dims())?;
        self.prepare_checked(&Request { problem, tuning, formats, filters })
    }

    /// As [`Self::prepare`], which is the only caller and has checked the request.
    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported>;
}

/// What [`Kernel::prepare`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One that the kernel supports.
    pub problem: &'a Problem,
    /// One of the kernel's for the problem.
    pub tuning: &'a Tuning,
    /// Formats that the kernel takes, with the halo that the source really has.
    pub formats: &'a Formats,
    /// Filters of the problem's dimensions.
    pub filters: &'a [Filter],
}

impl Request<'_> {
    /// The value of a name of the tuning.
    pub fn tuning(&self, name: &str) -> usize {
        self.tuning.get(name)
    }

    /// Its problem and formats.
    pub fn signature(&self) -> Signature {
        let Self { problem, formats, .. } = *self;
        Signature { src: problem.src(), dst: problem.dst(), problem: problem.clone(), formats: *formats }
    }

    /// The filters with their BatchNorms folded.
    pub fn folded(&self) -> Vec<Folded<'_>> {
        self.filters.iter().map(Filter::folded).collect()
    }

    /// The filters folded, and rounded to 8 bits.
    pub fn quantized(&self) -> Vec<Quantized<'_>> {
        self.filters.iter().map(Filter::quantized).collect()
    }

    /// The filters folded, and rounded to bf16.
    pub fn rounded(&self) -> Vec<Rounded<'_>> {
        self.filters.iter().map(Filter::rounded).collect()
    }
}

/// A kernel prepared for a problem; owns its packed weights. Accepts any batch up to the problem's.
pub trait Prepared: Send + Sync {
    /// What it was prepared for.
    fn signature(&self) -> &Signature;

    /// The packed weights; none where the kernel has none or keeps the filters as they are.
    fn packed(&self) -> Vec<&Buffer> {
        Vec::new()
    }

    /// The same, to be filled where they were prepared from [`Filter::dims_only`].
    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        Vec::new()
    }

    /// Bytes of packed weights.
    fn packed_bytes(&self) -> usize {
        self.packed().iter().map(|buffer| buffer.len() * size_of::<f32>()).sum()
    }

    /// The packed weights that a worker reads first for `n` images, in that order, so that the step
    /// before can prefetch them into its second-level cache. Empty where prefetching does not help.
    fn worker_weights(&self, _worker: usize, _workers: usize, _n: usize) -> &[f32] {
        &[]
    }

    /// Elements of [`Io::prefetch_next`] that it prefetches into the L2 cache while it runs.
    fn prefetch_capacity(&self) -> usize {
        0
    }

    /// Elements of scratch that [`Self::run`] uses of each worker.
    fn scratch(&self) -> usize {
        0
    }

    /// Elements of scratch for a team.
    fn scratch_of_team(&self, workers: usize) -> usize {
        workers * round_up(self.scratch())
    }

    /// Number of phases.
    fn phase_count(&self) -> usize {
        1
    }

    /// Units of independent work of one phase for `n` images.
    fn units(&self, phase: usize, n: usize) -> usize;

    /// Computes a range of a phase's units, without allocating.
    ///
    /// # Safety
    /// - `io` has the shapes of [`Self::signature`] (with `n` images of at most its batch), its
    ///   source exactly the format there and its destinations any halo, and nobody writes its
    ///   source or reads its destinations during the step.
    /// - Every unit of the phase is given to one caller at a time, and all units of the phases
    ///   before have returned.
    /// - `scratch` has what [`Self::scratch`] asks for, and is this caller's alone.
    /// - Packed weights of [`Filter::dims_only`] have been filled in.
    #[allow(unsafe_code, reason = "workers share a destination; by the contract they write disjoint parts")]
    unsafe fn run(&self, phase: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch);
}

/// The problem and formats that a [`Prepared`] was prepared for.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The problem, with its largest batch.
    pub problem: Problem,
    /// The formats, with the halo that the source really has.
    pub formats: Formats,
    /// Shape of the source.
    pub src: Shape,
    /// Shapes of the destinations, one a segment.
    pub dst: Vec<Shape>,
}

/// Source and destinations of one step.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// What is read.
    pub src: View<'a>,
    dst: [Option<ViewMut<'a>>; MAX_SEGMENTS],
    pub(crate) segments: usize,
    /// Elements of the worker's weights ([`Prepared::worker_weights`]) that are prefetched already.
    pub prefetched: usize,
    /// Weights that the worker reads next, at most [`Prepared::prefetch_capacity`] elements.
    pub prefetch_next: &'a [f32],
}

impl<'a> Io<'a> {
    /// A source and one destination a segment.
    ///
    /// # Panics
    /// If there are more than [`MAX_SEGMENTS`].
    pub fn new(src: View<'a>, destinations: impl IntoIterator<Item = ViewMut<'a>>) -> Self {
        let mut dst = [None; MAX_SEGMENTS];
        let mut segments = 0;
        for view in destinations {
            dst[segments] = Some(view);
            segments += 1;
        }
        Self { src, dst, segments, prefetched: 0, prefetch_next: &[] }
    }

    /// With the number of elements that are prefetched, and weights to prefetch.
    pub fn with_prefetch(self, prefetched: usize, prefetch_next: &'a [f32]) -> Self {
        Self { prefetched, prefetch_next, ..self }
    }

    /// The destination of a segment.
    #[inline(always)]
    pub fn dst(&self, segment: usize) -> ViewMut<'a> {
        self.dst[segment].expect("a destination a segment")
    }

    /// Images.
    pub fn images(&self) -> usize {
        self.src.shape.n
    }
}

fn check_segments(problem: &Problem) -> Result<(), Unsupported> {
    const { assert!(MAX_SEGMENTS == 8) };
    match problem {
        Problem::Conv(conv) if !(1..=MAX_SEGMENTS).contains(&conv.segments.len()) => {
            let found = conv.segments.len().to_string();
            Err(Unsupported::Shape { what: "number of segments", found, expected: "1 to 8" })
        }
        _ => Ok(()),
    }
}

/// The halo of the source may be larger than the kernel needs.
fn check_formats(formats: &Formats, offered: &[Formats]) -> Result<(), Unsupported> {
    let covers = |wanted: &Formats| {
        let (have, want) = (formats.src.halo, wanted.src.halo);
        formats.src.dtype == wanted.src.dtype
            && formats.dst.dtype == wanted.dst.dtype
            && have.with(want) == have
    };
    if offered.iter().any(covers) {
        return Ok(());
    }
    let text = |formats: &Formats| format!("{} -> {}", formats.src, formats.dst);
    let expected = offered.iter().map(text).collect::<Vec<_>>().join(" or ");
    Err(Unsupported::Formats { found: text(formats), expected })
}

fn check_filters(filters: &[Filter], wanted: &[[usize; 4]]) -> Result<(), Unsupported> {
    let text = |dims: Option<[usize; 4]>| dims.map_or("absent".to_string(), |dims| format!("{dims:?}"));
    for index in 0..wanted.len().max(filters.len()) {
        let (found, expected) = (filters.get(index).map(|f| f.dims), wanted.get(index).copied());
        if found != expected {
            return Err(Unsupported::Filters { index, found: text(found), expected: text(expected) });
        }
    }
    Ok(())
}
