//! The traits that every implementation stands behind, and the table of all of them.

use std::fmt;
use std::ops::Range;

use crate::cpu::{Cpu, Tier};
use crate::filter::Filter;
use crate::problem::Problem;
use crate::scratch::{Buffer, Scratch, ScratchReq};
use crate::tensor::{Dtype, Formats, Shape, View, ViewMut};

/// Why a kernel does not take a problem, a tuning or a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The processor lacks the instructions.
    #[error("this processor has no {needed}")]
    Isa {
        /// What the kernel is written for.
        needed: Tier,
    },
    /// The user does not allow the instructions.
    #[error("needs {needed}, limited to {limit}")]
    IsaLimited {
        /// What the kernel is written for.
        needed: Tier,
        /// What is allowed.
        limit: Tier,
    },
    /// Another kind of problem.
    #[error("takes {takes} only")]
    Kind {
        /// What it takes.
        takes: &'static str,
    },
    /// A property of the shape that the kernel is not made for.
    #[error("{what} is {found}, expected {expected}")]
    Shape {
        /// The property.
        what: &'static str,
        /// Its value.
        found: String,
        /// What the kernel takes.
        expected: &'static str,
    },
    /// A tuning that the kernel does not offer for the problem.
    #[error("no tuning {found} for this problem")]
    Tuning {
        /// The tuning.
        found: String,
    },
    /// Formats that the kernel does not take with the tuning.
    #[error("formats are {found}, expected at least {expected}")]
    Formats {
        /// What was given.
        found: String,
        /// What it takes.
        expected: String,
    },
    /// Filters that do not belong to the problem.
    #[error("filter {index} is {found}, expected {expected}")]
    Filters {
        /// Which of the filters.
        index: usize,
        /// Its dimensions.
        found: String,
        /// The problem's.
        expected: String,
    },
}

/// Choices that a kernel leaves open, as named integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuning(Vec<(&'static str, usize)>);

impl Tuning {
    /// Names and values, in the order they are shown.
    pub fn new(values: impl Into<Vec<(&'static str, usize)>>) -> Self {
        Self(values.into())
    }

    /// The value of a name that the kernel put there itself.
    ///
    /// # Panics
    /// If the name is not there.
    pub fn get(&self, name: &str) -> usize {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.unwrap_or_else(|| panic!("tuning {self} has no `{name}`")).1
    }

    /// How many of its numbers are not those of another tuning.
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

/// What a kernel does to the exactness of its results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerics {
    /// What inputs and weights are rounded to before they are multiplied.
    pub rounding: Dtype,
    /// RMS error over that of a direct sum in f32; 1 for anything that is one.
    pub growth: f64,
}

impl Numerics {
    /// A direct sum in f32.
    pub const DIRECT_F32: Self = Self { rounding: Dtype::F32, growth: 1.0 };
}

/// One way to compute a problem. Stateless; holding one proves that its instructions are there.
pub trait Kernel: Send + Sync {
    /// Whether it computes the problem, and if not, why not.
    fn supports(&self, problem: &Problem) -> Result<(), Refusal>;

    /// The choices it leaves open for a problem it supports; the first is the default.
    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let _ = problem;
        vec![Tuning::default()]
    }

    /// The formats it takes, f32 in and out first: a source with at least that halo, and destinations of
    /// that type, each with any halo.
    fn formats(&self, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let _ = (problem, tuning);
        vec![Formats::F32]
    }

    /// What it does to exactness.
    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let _ = (problem, tuning);
        Numerics::DIRECT_F32
    }

    /// Multiply-adds that it executes for the problem; fewer than the problem's for a fast algorithm.
    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let _ = tuning;
        problem.flops() / 2
    }

    /// Packs the filters, whose number and dimensions are [`Problem::filter_dims`], for a problem, tuning
    /// and formats.
    ///
    /// # Errors
    /// Whatever does not fit together, as a [`Refusal`].
    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Refusal>;
}

/// A kernel bound to a problem; owns its packed weights. Accepts any batch up to the problem's.
pub trait Prepared: Send + Sync {
    /// What it was prepared for.
    fn bound(&self) -> &Bound;

    /// The packed weights; nothing where the filters are kept as they are.
    fn packed(&self) -> Vec<&Buffer>;

    /// The same, to be filled where they were prepared from [`Filter::hollow`].
    fn packed_mut(&mut self) -> Vec<&mut Buffer>;

    /// Bytes of packed weights.
    fn packed_bytes(&self) -> usize {
        self.packed().iter().map(|buffer| buffer.len() * size_of::<f32>()).sum()
    }

    /// The packed weights that one of `workers` is to read for `n` images, in that order, if it gains by their
    /// being in its second-level cache before.
    fn reads(&self, worker: usize, workers: usize, n: usize) -> &[f32] {
        let _ = (worker, workers, n);
        &[]
    }

    /// How many elements of [`Io::ahead`] it brings to the second-level cache on the way.
    fn brings(&self) -> usize {
        0
    }

    /// Scratch that [`Self::run`] uses.
    fn scratch(&self) -> ScratchReq;

    /// Number of phases.
    fn phase_count(&self) -> usize {
        1
    }

    /// Units of independent work of one phase for `n` images.
    fn units(&self, phase: usize, n: usize) -> usize;

    /// Computes a range of a phase's units, without allocating.
    ///
    /// # Safety
    /// - `io` has the shapes of [`Self::bound`] (with `n` images of at most its batch), its source exactly
    ///   the format there and its destinations any halo, and nobody writes its source or reads its
    ///   destinations during the step.
    /// - Every unit of the phase is given to one caller at a time, and all units of the phases
    ///   before have returned.
    /// - `scratch` has what [`Self::scratch`] asks for; the shared part is the same for all callers
    ///   of the step and the worker's part is this caller's alone.
    #[allow(unsafe_code, reason = "workers share a destination; the contract keeps them apart")]
    unsafe fn run(&self, phase: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch);
}

/// The problem and formats that a [`Prepared`] is bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The problem, with its largest batch.
    pub problem: Problem,
    /// The formats, with the halo that the source really has.
    pub formats: Formats,
    /// Shape of the source.
    pub src: Shape,
    /// Shapes of the destinations, one a segment.
    pub dst: Vec<Shape>,
}

impl Bound {
    /// To a problem and formats.
    pub fn new(problem: &Problem, formats: &Formats) -> Self {
        let (src, dst) = (problem.src(), problem.dst());
        Self { problem: problem.clone(), formats: *formats, src, dst }
    }
}

/// The largest number of segments of a problem.
pub const MAX_SEGMENTS: usize = 8;

/// Source and destinations of one step.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// What is read.
    pub src: View<'a>,
    dst: [Option<ViewMut<'a>>; MAX_SEGMENTS],
    segments: usize,
    /// How many elements of the worker's weights ([`Prepared::reads`]) a step before has brought near.
    pub near: usize,
    /// What the worker reads after this step, for [`Prepared::brings`].
    pub ahead: &'a [f32],
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
        Self { src, dst, segments, near: 0, ahead: &[] }
    }

    /// With weights that have been brought near, and weights to bring near.
    pub fn amid(self, near: usize, ahead: &'a [f32]) -> Self {
        Self { near, ahead, ..self }
    }

    /// The destination of a segment.
    #[inline(always)]
    pub fn dst(&self, segment: usize) -> ViewMut<'a> {
        self.dst[segment].expect("a destination a segment")
    }

    /// Destinations.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Images.
    pub fn images(&self) -> usize {
        self.src.shape.n
    }
}

/// What a row of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Measured, and chosen where it wins.
    Candidate,
    /// Measured to compare with, and used only where asked for by name.
    Baseline {
        /// Why it is not chosen.
        because: &'static str,
    },
    /// The reference that the others are checked against; never timed unless asked.
    Oracle,
}

/// A row of the table of kernels.
#[derive(Clone, Copy)]
pub struct Row {
    /// Plan id, test name and bench name.
    pub id: &'static str,
    /// The algorithm, whatever the instruction set.
    pub family: &'static str,
    /// What it is for.
    pub role: Role,
    /// Makes the kernel, or says what this machine lacks.
    pub make: fn(&Cpu) -> Result<Box<dyn Kernel>, Refusal>,
    /// The constructor's path.
    made_by: &'static str,
}

/// Of each module of this library, the hash of its code and of all that it uses.
const CODE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/code.rs"));

impl Row {
    /// The instruction tier that its id ends with; none where another library chooses.
    pub fn tier(&self) -> Option<Tier> {
        self.id.rsplit('_').next()?.parse().ok()
    }

    /// A hash of the code that computes it: measurements of other code say nothing about it.
    pub fn code(&self) -> &'static str {
        let path = self.made_by.replace(' ', "");
        let path = path.strip_prefix("$crate::").unwrap_or(&path);
        let is_in = |(module, _): &&(&str, &str)| {
            path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
        };
        CODE.iter().filter(is_in).max_by_key(|(module, _)| module.len()).map_or("", |(_, code)| code)
    }
}

/// Expands a macro with all rows of the table: `id: family, role, constructor;`.
///
/// # How to add a kernel
///
/// 1. Write one file with a struct that implements [`Kernel`] and one that implements [`Prepared`],
///    beside the family it is nearest to, and declare it with `mod`.
/// 2. Add one row here. Its name is its id for good: in plans, logs, tests and benches.
///
/// The row is what makes the tuner measure it, the conformance tests check it and the benches draw
/// it: nothing else lists kernels.
#[macro_export]
macro_rules! kernel_table {
    ($then:ident) => {
        $then! {
            reference: "reference", $crate::kernel::Role::Oracle, $crate::reference::Reference::make;
            direct_avx512: "direct", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Avx512>::make;
            direct_avx2: "direct", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Avx2>::make;
            direct_plain: "direct", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Plain>::make;
            tiles_bf16_amx: "tiles_bf16", $crate::kernel::Role::Candidate, $crate::conv::amx::AmxConv::make;
            direct_bf16_avx512bf16: "direct_bf16", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Avx512, $crate::cpu::Avx512Bf16>::make;
            direct_bf16_avx512: "direct_bf16", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Avx512, $crate::gemm::multiply::Widened>::make;
            direct_bf16_avx2: "direct_bf16", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Avx2, $crate::gemm::multiply::Widened>::make;
            direct_bf16_plain: "direct_bf16", $crate::kernel::Role::Candidate, $crate::conv::direct::Direct::<$crate::cpu::Plain, $crate::gemm::multiply::Widened>::make;
            winograd_avx512: "winograd", $crate::kernel::Role::Candidate, $crate::conv::winograd::Winograd::<$crate::cpu::Avx512>::make;
            winograd_avx2: "winograd", $crate::kernel::Role::Candidate, $crate::conv::winograd::Winograd::<$crate::cpu::Avx2>::make;
            winograd_plain: "winograd", $crate::kernel::Role::Candidate, $crate::conv::winograd::Winograd::<$crate::cpu::Plain>::make;
            separable_avx512: "separable", $crate::kernel::Role::Candidate, $crate::conv::separable::Separable::<$crate::cpu::Avx512>::make;
            separable_avx2: "separable", $crate::kernel::Role::Candidate, $crate::conv::separable::Separable::<$crate::cpu::Avx2>::make;
            separable_plain: "separable", $crate::kernel::Role::Candidate, $crate::conv::separable::Separable::<$crate::cpu::Plain>::make;
            strassen_avx512: "strassen", $crate::kernel::Role::Candidate, $crate::conv::strassen::Strassen::<$crate::cpu::Avx512>::make;
            strassen_avx2: "strassen", $crate::kernel::Role::Candidate, $crate::conv::strassen::Strassen::<$crate::cpu::Avx2>::make;
            strassen_plain: "strassen", $crate::kernel::Role::Candidate, $crate::conv::strassen::Strassen::<$crate::cpu::Plain>::make;
            im2col_gemm: "im2col_gemm", $crate::conv::im2col::ROLE, $crate::conv::im2col::Im2colGemm::make;
            unfused_avx512: "unfused", $crate::kernel::Role::Candidate, $crate::conv::unfused::Unfused::<$crate::cpu::Avx512>::make;
            unfused_avx2: "unfused", $crate::kernel::Role::Candidate, $crate::conv::unfused::Unfused::<$crate::cpu::Avx2>::make;
            unfused_plain: "unfused", $crate::kernel::Role::Candidate, $crate::conv::unfused::Unfused::<$crate::cpu::Plain>::make;
            pool_avx512: "pool", $crate::kernel::Role::Candidate, $crate::pool::Pooling::<$crate::cpu::Avx512>::make;
            pool_avx2: "pool", $crate::kernel::Role::Candidate, $crate::pool::Pooling::<$crate::cpu::Avx2>::make;
            pool_plain: "pool", $crate::kernel::Role::Candidate, $crate::pool::Pooling::<$crate::cpu::Plain>::make;
            softmax_avx512: "softmax", $crate::kernel::Role::Candidate, $crate::softmax::Softmax::<$crate::cpu::Avx512>::make;
            softmax_avx2: "softmax", $crate::kernel::Role::Candidate, $crate::softmax::Softmax::<$crate::cpu::Avx2>::make;
            softmax_plain: "softmax", $crate::kernel::Role::Candidate, $crate::softmax::Softmax::<$crate::cpu::Plain>::make;
        }
    };
}

macro_rules! rows {
    ($($id:ident: $family:literal, $role:expr, $make:expr;)*) => {
        &[$(Row { id: stringify!($id), family: $family, role: $role, make: $make, made_by: stringify!($make) }),*]
    };
}

/// All rows, in the order that settles ties.
///
/// Inlined elsewhere, it would have each crate that calls it compile all kernels again.
#[inline(never)]
pub fn table() -> &'static [Row] {
    kernel_table!(rows)
}

/// The row of an id.
pub fn row(id: &str) -> Option<&'static Row> {
    table().iter().find(|row| row.id == id)
}

/// Refuses tunings, formats and filters that do not belong to the problem; for `prepare`.
pub(crate) fn validate(
    kernel: &dyn Kernel,
    problem: &Problem,
    tuning: &Tuning,
    formats: &Formats,
    filters: &[Filter],
) -> Result<(), Refusal> {
    const { assert!(MAX_SEGMENTS == 8) };
    if let Problem::Conv(conv) = problem
        && !(1..=MAX_SEGMENTS).contains(&conv.segments.len())
    {
        let found = conv.segments.len().to_string();
        return Err(Refusal::Shape { what: "number of segments", found, expected: "1 to 8" });
    }
    kernel.supports(problem)?;
    if !kernel.tunings(problem).contains(tuning) {
        return Err(Refusal::Tuning { found: tuning.to_string() });
    }
    let taken = kernel.formats(problem, tuning);
    let covers = |wanted: &Formats| {
        let (have, want) = (formats.src.halo, wanted.src.halo);
        formats.src.dtype == wanted.src.dtype
            && formats.dst.dtype == wanted.dst.dtype
            && have.with(want) == have
    };
    if !taken.iter().any(covers) {
        let expected = taken.iter().map(|f| format!("{} -> {}", f.src, f.dst));
        return Err(Refusal::Formats {
            found: format!("{} -> {}", formats.src, formats.dst),
            expected: expected.collect::<Vec<_>>().join(" or "),
        });
    }
    let wanted = problem.filter_dims();
    for index in 0..wanted.len().max(filters.len()) {
        let text = |dims: Option<[usize; 4]>| match dims {
            Some(dims) => format!("{dims:?}"),
            None => "absent".to_string(),
        };
        let (found, expected) = (filters.get(index).map(|f| f.dims), wanted.get(index).copied());
        if found != expected {
            return Err(Refusal::Filters { index, found: text(found), expected: text(expected) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_hash_of_its_code_that_its_tiers_share_and_other_files_do_not() {
        let file = |row: &Row| row.made_by.split(['<', ':', ' ']).filter(|p| !p.is_empty()).nth(2);
        for a in table() {
            assert_eq!(a.code().len(), 16, "{} {}", a.id, a.made_by);
            for b in table() {
                assert_eq!(a.code() == b.code(), file(a) == file(b), "{} {}", a.made_by, b.made_by);
            }
        }
    }
}
