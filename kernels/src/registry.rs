//! The one table of all kernels.
//!
//! # How to add a kernel
//!
//! 1. Write one file with a struct that implements [`Kernel`] and one that implements
//!    [`crate::kernel::Prepared`], in the folder of the family that it resembles most, and declare
//!    it with `mod`.
//! 2. Add one row to [`kernel_table!`](crate::kernel_table). Its name is its id for good: in plans,
//!    logs, tests and benches.
//!
//! The row is what makes the tuner measure it, the conformance tests check it and the benches draw
//! it: nothing else lists kernels.

use Role::{Candidate, Oracle};

#[cfg(target_arch = "x86_64")]
use crate::cpu::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};
use crate::cpu::{Cpu, Plain};
use crate::error::Unsupported;
#[cfg(target_arch = "x86_64")]
use crate::gemm::integers::Int16Vnni;
use crate::gemm::integers::{Int8, Int16};
use crate::gemm::multiply::Widened;
use crate::kernel::Kernel;
use crate::tier::Tier;
use crate::{conv, pool, sigmoid, softmax, verify};

/// What a kernel is for.
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
pub struct KernelEntry {
    /// Plan id, test name and bench name.
    pub id: &'static str,
    /// The algorithm, whatever the instruction set.
    pub family: &'static str,
    /// The instruction set it is written for; none where another library chooses.
    pub tier: Option<Tier>,
    /// What it is for.
    pub role: Role,
    /// Makes the kernel, or says what this machine lacks.
    pub make: fn(&Cpu) -> Result<Box<dyn Kernel>, Unsupported>,
    /// The constructor's path from the crate's root.
    made_by: &'static str,
}

/// Of each module of this library, the hash of its code and of all that it uses.
const CODE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/code.rs"));

impl KernelEntry {
    /// The path of the module that makes it, such as `conv::direct`.
    pub fn module(&self) -> String {
        let path = self.made_by.replace(' ', "");
        let parts = path.split("::").take_while(|part| part.starts_with(char::is_lowercase));
        parts.collect::<Vec<_>>().join("::")
    }

    /// A hash of the code that computes it: measurements of other code say nothing about it.
    pub fn code(&self) -> &'static str {
        let module = self.module();
        CODE.iter().find(|(path, _)| *path == module).map_or("", |(_, code)| code)
    }
}

/// Role of im2col.
const ALLOCATES: Role = Role::Baseline { because: "the gemm crate allocates on every call" };

/// Expands a macro with all rows of the table: `id: family, tier, role, constructor;`. `Any` is no
/// tier: the kernel runs on any processor. Constructors have a meaning in the module `registry`
/// only; elsewhere a macro may use the ids.
#[macro_export]
macro_rules! kernel_table {
    ($then:ident) => {
        $then! {
            reference: "reference", Any, Oracle, verify::reference::Reference::make;
            direct_avx512: "direct", Avx512, Candidate, conv::direct::Direct::<Avx512>::make;
            direct_avx2: "direct", Avx2, Candidate, conv::direct::Direct::<Avx2>::make;
            direct_plain: "direct", Plain, Candidate, conv::direct::Direct::<Plain>::make;
            tiles_bf16_amx: "amx_bf16", Amx, Candidate, conv::amx::AmxConv::<half::bf16>::make;
            tiles_int8_amx: "amx_int8", Amx, Candidate, conv::amx::AmxConv::<u8>::make;
            direct_bf16_avx512bf16: "direct_bf16", Avx512Bf16, Candidate, conv::direct::Direct::<Avx512, Avx512Bf16>::make;
            direct_bf16_avx512: "direct_bf16", Avx512, Candidate, conv::direct::Direct::<Avx512, Widened>::make;
            direct_bf16_avx2: "direct_bf16", Avx2, Candidate, conv::direct::Direct::<Avx2, Widened>::make;
            direct_bf16_plain: "direct_bf16", Plain, Candidate, conv::direct::Direct::<Plain, Widened>::make;
            direct_int8_avx512vnni: "direct_int8", Avx512Vnni, Candidate, conv::direct::Direct::<Avx512, Avx512Vnni>::make;
            direct_int8_avxvnni: "direct_int8", AvxVnni, Candidate, conv::direct::Direct::<Avx2, AvxVnni>::make;
            direct_int8_plain: "direct_int8", Plain, Candidate, conv::direct::Direct::<Plain, Int8>::make;
            winograd_avx512: "winograd", Avx512, Candidate, conv::winograd::Winograd::<Avx512>::square;
            winograd_avx2: "winograd", Avx2, Candidate, conv::winograd::Winograd::<Avx2>::square;
            winograd_plain: "winograd", Plain, Candidate, conv::winograd::Winograd::<Plain>::square;
            separable_avx512: "separable", Avx512, Candidate, conv::winograd::Winograd::<Avx512>::line;
            separable_avx2: "separable", Avx2, Candidate, conv::winograd::Winograd::<Avx2>::line;
            separable_plain: "separable", Plain, Candidate, conv::winograd::Winograd::<Plain>::line;
            winograd_int16_avx512vnni: "winograd_int16", Avx512Vnni, Candidate, conv::winograd::Winograd::<Avx512, Int16Vnni>::square;
            winograd_int16_avx2: "winograd_int16", Avx2, Candidate, conv::winograd::Winograd::<Avx2, Int16>::square;
            winograd_int16_plain: "winograd_int16", Plain, Candidate, conv::winograd::Winograd::<Plain, Int16>::square;
            separable_int16_avx512vnni: "separable_int16", Avx512Vnni, Candidate, conv::winograd::Winograd::<Avx512, Int16Vnni>::line;
            separable_int16_avx2: "separable_int16", Avx2, Candidate, conv::winograd::Winograd::<Avx2, Int16>::line;
            separable_int16_plain: "separable_int16", Plain, Candidate, conv::winograd::Winograd::<Plain, Int16>::line;
            strassen_avx512: "strassen", Avx512, Candidate, conv::strassen::Strassen::<Avx512>::make;
            strassen_avx2: "strassen", Avx2, Candidate, conv::strassen::Strassen::<Avx2>::make;
            strassen_plain: "strassen", Plain, Candidate, conv::strassen::Strassen::<Plain>::make;
            im2col_avx512: "im2col", Avx512, Candidate, conv::im2col::Im2col::<Avx512>::make;
            im2col_avx2: "im2col", Avx2, Candidate, conv::im2col::Im2col::<Avx2>::make;
            im2col_plain: "im2col", Plain, Candidate, conv::im2col::Im2col::<Plain>::make;
            im2col_bf16_avx512bf16: "im2col_bf16", Avx512Bf16, Candidate, conv::im2col::Im2col::<Avx512, Avx512Bf16>::make;
            im2col_bf16_avx512: "im2col_bf16", Avx512, Candidate, conv::im2col::Im2col::<Avx512, Widened>::make;
            im2col_bf16_avx2: "im2col_bf16", Avx2, Candidate, conv::im2col::Im2col::<Avx2, Widened>::make;
            im2col_bf16_plain: "im2col_bf16", Plain, Candidate, conv::im2col::Im2col::<Plain, Widened>::make;
            im2col_int8_avx512vnni: "im2col_int8", Avx512Vnni, Candidate, conv::im2col::Im2col::<Avx512, Avx512Vnni>::make;
            im2col_int8_avx512: "im2col_int8", Avx512, Candidate, conv::im2col::Im2col::<Avx512, Int16>::make;
            im2col_int8_avxvnni: "im2col_int8", AvxVnni, Candidate, conv::im2col::Im2col::<Avx2, AvxVnni>::make;
            im2col_int8_avx2: "im2col_int8", Avx2, Candidate, conv::im2col::Im2col::<Avx2, Int16>::make;
            im2col_int8_plain: "im2col_int8", Plain, Candidate, conv::im2col::Im2col::<Plain, Int16>::make;
            im2col_gemm: "im2col_gemm", Any, ALLOCATES, conv::im2col_gemm::Im2colGemm::make;
            unfused_avx512: "unfused", Avx512, Candidate, conv::unfused::Unfused::<Avx512>::make;
            unfused_avx2: "unfused", Avx2, Candidate, conv::unfused::Unfused::<Avx2>::make;
            unfused_plain: "unfused", Plain, Candidate, conv::unfused::Unfused::<Plain>::make;
            pool_avx512: "pool", Avx512, Candidate, pool::Pooling::<Avx512>::make;
            pool_avx2: "pool", Avx2, Candidate, pool::Pooling::<Avx2>::make;
            pool_plain: "pool", Plain, Candidate, pool::Pooling::<Plain>::make;
            softmax_avx512: "softmax", Avx512, Candidate, softmax::Softmax::<Avx512>::make;
            softmax_avx2: "softmax", Avx2, Candidate, softmax::Softmax::<Avx2>::make;
            softmax_plain: "softmax", Plain, Candidate, softmax::Softmax::<Plain>::make;
            sigmoid_avx512: "sigmoid", Avx512, Candidate, sigmoid::Sigmoid::<Avx512>::make;
            sigmoid_avx2: "sigmoid", Avx2, Candidate, sigmoid::Sigmoid::<Avx2>::make;
            sigmoid_plain: "sigmoid", Plain, Candidate, sigmoid::Sigmoid::<Plain>::make;
        }
    };
}

macro_rules! tier {
    (Any) => {
        None
    };
    ($tier:ident) => {
        Some(Tier::$tier)
    };
}

/// None: unit tests need no kernel, and their harness would compile all of them a second time.
#[cfg(test)]
macro_rules! constructor {
    ($tier:ident, $make:expr) => {
        |_: &Cpu| panic!("unit tests have no kernels")
    };
}

/// The constructor, where the architecture has the tier.
#[cfg(not(test))]
macro_rules! constructor {
    (Any, $make:expr) => {
        $make
    };
    (Plain, $make:expr) => {
        $make
    };
    ($tier:ident, $make:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let make = $make;
        #[cfg(not(target_arch = "x86_64"))]
        let make = |_: &Cpu| Err(Unsupported::Isa(Tier::$tier));
        make
    }};
}

macro_rules! entries {
    ($($id:ident: $family:literal, $tier:ident, $role:expr, $make:expr;)*) => {
        &[$(KernelEntry {
            id: stringify!($id),
            family: $family,
            tier: tier!($tier),
            role: $role,
            make: constructor!($tier, $make),
            made_by: stringify!($make),
        }),*]
    };
}

static TABLE: &[KernelEntry] = kernel_table!(entries);

/// All rows, in the order that settles ties.
pub fn table() -> &'static [KernelEntry] {
    TABLE
}

/// The row of an id.
pub fn entry(id: &str) -> Option<&'static KernelEntry> {
    table().iter().find(|entry| entry.id == id)
}
