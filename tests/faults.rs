//! The checks see what a kernel may get wrong: the reference with one fault fails them.

#![allow(unsafe_code, reason = "writes where a kernel must not")]

use std::ops::Range;
use std::panic::catch_unwind;

use cross_checks::{Case, Data, Subject, conv};
use half::bf16;
use kernels::Dtype::{self, Bf16, F32};
use kernels::verify::Reference;
use kernels::{
    Element, Format, Formats, Io, Kernel, Padding, Prepared, Problem, Request, Scratch, Signature, Tuning,
    Unsupported,
};

/// What goes wrong after the reference has computed everything.
type Fault = fn(&Io, &mut Scratch);

/// The reference with a fault, in a type.
struct Faulty(Fault, Dtype);

struct PreparedFaulty(Box<dyn Prepared>, Fault);

impl Kernel for Faulty {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        Reference.supports(problem)
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        let format = |halo| Format { dtype: self.1, halo };
        vec![Formats { src: format(Padding::symmetric(1, 1)), dst: format(Padding::default()) }]
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        Ok(Box::new(PreparedFaulty(Reference.prepare_checked(request)?, self.0)))
    }
}

impl Prepared for PreparedFaulty {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn scratch(&self) -> usize {
        16
    }

    fn units(&self, phase: usize, n: usize) -> usize {
        self.0.units(phase, n)
    }

    unsafe fn run(&self, phase: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        // SAFETY: by the caller.
        unsafe { self.0.run(phase, units, io, scratch) };
        self.1(io, scratch);
    }
}

fn check(fault: Fault, dtype: Dtype) {
    let case = Case::sliced(Problem::Conv(conv("n1h5w5c4k6+3r3s3")));
    let data = Data::shared(&case.problem);
    Subject::stand_in(Box::new(Faulty(fault, dtype))).check(&case, data, &Tuning::default(), &[1]);
}

/// Changes an element at a distance from channel 0 of the last pixel of the first segment.
fn change<T: Element>(io: &Io, offset: isize, change: impl Fn(T) -> T) {
    let element = io.dst(0).pixel::<T>(0, 4, 4).wrapping_offset(offset);
    // SAFETY: the faults stay inside the buffer of the destinations.
    unsafe { *element = change(*element) };
}

/// The distance to the pixel behind the last, which is halo.
fn halo(io: &Io) -> isize {
    io.dst(0).pitch.pixel as isize
}

#[test]
fn no_fault_passes() {
    check(|_, _| (), F32);
    check(|_, _| (), Bf16);
}

#[test]
fn every_fault_is_seen() {
    let read_past: Fault = |io, _| {
        // SAFETY: the source is a slice of a wider tensor.
        let beyond = unsafe { *io.src.pixel::<f32>(0, 0, 0).add(4) };
        change(io, 2, |_| beyond);
    };
    // SAFETY: scratch has a guard behind it.
    let write_past_scratch: Fault = |_, scratch| unsafe { *scratch.worker.add(16) = 1.0 };
    let not_nearest: Fault =
        |io, _| (0..6).for_each(|channel| change(io, channel, |v: bf16| bf16::from_bits(v.to_bits() + 2)));
    let (foreign, in_halo) = ("no destination's was overwritten", "halo channel is not zero");
    let faults: [(&str, Dtype, Fault, &str); 9] = [
        ("one wrong element", F32, |io, _| change(io, 5, |_| 7f32), "row 4, column 4, channel 5"),
        ("a source read past its channels", F32, read_past, "channel 2: NaN"),
        ("a write past the channels", F32, |io, _| change(io, 6, |_| 0f32), foreign),
        ("a write into the halo", F32, |io, _| change(io, halo(io), |_| 1f32), in_halo),
        ("a write past the scratch", F32, write_past_scratch, "wrote beyond its scratch"),
        ("elements that are not the nearest", Bf16, not_nearest, "row 4, column 4, channel"),
        ("a write past the channels", Bf16, |io, _| change(io, 6, |_| bf16::ZERO), foreign),
        ("a write into the halo", Bf16, |io, _| change(io, halo(io), |_| bf16::ONE), in_halo),
        ("an element of another type", F32, |io, _| change(io, 0, |v: bf16| v), "f32 read as bf16"),
    ];
    for (name, dtype, fault, message) in faults {
        let failure = catch_unwind(|| check(fault, dtype)).expect_err(name);
        let text = failure.downcast_ref::<String>().expect("a formatted message");
        assert!(text.contains(message), "{name} in {dtype}: {text}");
    }
}
