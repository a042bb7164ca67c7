//! The checks see what a kernel may get wrong: the reference with one fault fails them.

#![allow(unsafe_code, reason = "writes where a kernel must not")]

use std::ops::Range;

use cross_checks::{Case, Data, Subject, conv};
use half::bf16;
use kernels::kernel::Request;
use kernels::verify::Reference;
use kernels::{
    Buffer, Dtype, Format, Formats, Io, Kernel, Padding, Prepared, Problem, Scratch, Signature, Tuning,
    Unsupported,
};

/// What goes wrong after the reference has computed everything.
type Fault = fn(&Io, &mut Scratch);

struct Faulty(Fault, Dtype);

struct PreparedFaulty(Box<dyn Prepared>, Fault);

impl Kernel for Faulty {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        Reference.supports(problem)
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        let (dtype, none) = (self.1, Padding::default());
        let format = |halo| Format { dtype, halo };
        vec![Formats { src: format(Padding::symmetric(1, 1)), dst: format(none) }]
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let prepared = Reference.prepare_checked(request)?;
        Ok(Box::new(PreparedFaulty(prepared, self.0)))
    }
}

impl Prepared for PreparedFaulty {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.0.packed()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.0.packed_mut()
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

fn check(fault: Fault) {
    check_in(Dtype::F32, fault);
}

fn check_in(dtype: Dtype, fault: Fault) {
    let case = Case::sliced(Problem::Conv(conv("n1h5w5c4k6+3r3s3")));
    let data = Data::shared(&case.problem);
    Subject::stand_in(Box::new(Faulty(fault, dtype))).check(&case, &data, &Tuning::default(), &[1]);
}

/// Writes an element at a distance from channel 0 of the last pixel of the first segment.
fn write(io: &Io, offset: isize, value: f32) {
    let pixel = io.dst(0).pixel::<f32>(0, 4, 4);
    // SAFETY: the faults stay inside the buffer of the destinations.
    unsafe { *pixel.wrapping_offset(offset) = value };
}

/// Changes an element of bf16 as [`write`] does one of f32.
fn change_bf16(io: &Io, offset: isize, change: fn(u16) -> u16) {
    let pixel = io.dst(0).pixel::<bf16>(0, 4, 4).cast::<u16>().wrapping_offset(offset);
    // SAFETY: the faults stay inside the buffer of the destinations.
    unsafe { *pixel = change(*pixel) };
}

#[test]
fn no_fault_passes() {
    check(|_, _| ());
}

#[test]
#[should_panic(expected = "row 4, column 4, channel 5")]
fn one_wrong_element_is_seen() {
    check(|io, _| write(io, 5, 7.0));
}

#[test]
#[should_panic(expected = "channel 2: NaN")]
fn a_source_read_past_its_channels_is_seen() {
    // SAFETY: the source is a slice of a wider tensor.
    check(|io, _| write(io, 2, unsafe { *io.src.pixel::<f32>(0, 0, 0).add(4) }));
}

#[test]
#[should_panic(expected = "no destination's was overwritten")]
fn a_write_past_the_channels_is_seen() {
    check(|io, _| write(io, 6, 0.0));
}

#[test]
#[should_panic(expected = "halo channel is not zero")]
fn a_write_into_the_halo_is_seen() {
    check(|io, _| write(io, io.dst(0).pitch.pixel as isize, 1.0));
}

#[test]
#[should_panic(expected = "wrote beyond its scratch")]
fn a_write_past_the_scratch_is_seen() {
    // SAFETY: scratch has a guard behind it.
    check(|_, scratch| unsafe { *scratch.worker.add(16) = 1.0 });
}

#[test]
fn no_fault_passes_in_bf16() {
    check_in(Dtype::Bf16, |_, _| ());
}

#[test]
#[should_panic(expected = "row 4, column 4, channel")]
fn elements_that_are_not_the_nearest_in_bf16_are_seen() {
    check_in(Dtype::Bf16, |io, _| (0..6).for_each(|channel| change_bf16(io, channel, |bits| bits + 2)));
}

#[test]
#[should_panic(expected = "no destination's was overwritten")]
fn a_write_past_the_channels_is_seen_in_bf16() {
    check_in(Dtype::Bf16, |io, _| change_bf16(io, 6, |_| 0));
}

#[test]
#[should_panic(expected = "halo channel is not zero")]
fn a_write_into_the_halo_is_seen_in_bf16() {
    check_in(Dtype::Bf16, |io, _| change_bf16(io, io.dst(0).pitch.pixel as isize, |_| 1));
}

#[test]
#[should_panic(expected = "f32 read as bf16")]
fn an_element_of_another_type_is_not_read() {
    check_in(Dtype::F32, |io, _| change_bf16(io, 0, |bits| bits));
}
