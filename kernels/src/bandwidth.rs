//! Bytes a second that a core reads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::cpu::{Cpu, Isa, Plain};

/// Independent results: enough for all loads that a core has under way.
const SUMS: usize = 8;

/// Bytes that are read before it is seen whether all were.
const PART: usize = 1 << 16;

/// Bytes that are read between two looks at the clock.
const UNTIMED: usize = 1 << 18;

/// Reads bytes in order, again and again. It goes on where it was: bytes that do not fit a cache are
/// not there when their turn comes, however short a measurement is.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// The part that is read next.
    next: usize,
}

struct Reading<'r, 'a, I> {
    isa: I,
    reader: &'r mut Reader<'a>,
    time: Duration,
}

impl<I: Isa> Reading<'_, '_, I> {
    /// Reads parts that are not empty; bytes a second.
    #[inline(always)]
    fn rate(&mut self, bytes: &[u8], time: Duration) -> f64 {
        let Self { isa, reader, .. } = self;
        let mut sums = [isa.splat_u8s(0); SUMS];
        let (start, mut read, mut look) = (Instant::now(), 0, UNTIMED);
        loop {
            let from = reader.next * PART;
            let part = &bytes[from..(from + PART).min(bytes.len())];
            reader.next = if from + PART < bytes.len() { reader.next + 1 } else { 0 };
            // Otherwise a second pass could be left out: it changes nothing.
            let (vectors, _) = I::as_simd_u8s(black_box(part));
            let (groups, _) = vectors.as_chunks::<SUMS>();
            for group in groups {
                for (sum, vector) in sums.iter_mut().zip(group) {
                    *sum = isa.or_u8s(*sum, *vector);
                }
            }
            read += size_of_val(groups);
            if read >= look {
                if start.elapsed() >= time {
                    break;
                }
                look = read + UNTIMED;
            }
        }
        black_box(sums);
        read as f64 / start.elapsed().as_secs_f64()
    }
}

impl<I: Isa> pulp::WithSimd for Reading<'_, '_, I> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> f64 {
        let (bytes, group) = (self.reader.bytes, SUMS * I::U8_LANES);
        let whole = &bytes[..bytes.len() / group * group];
        if whole.is_empty() {
            return 0.0;
        }
        // The first reads move the bytes to where they fit; they do not count.
        self.rate(whole, self.time / 2);
        self.rate(whole, self.time)
    }
}

impl<'a> Reader<'a> {
    /// Begins with the first of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    fn by<I: Isa>(&mut self, cpu: &Cpu, time: Duration) -> Option<f64> {
        I::new(cpu).ok().map(|isa| isa.vectorize(Reading { isa, reader: self, time }))
    }

    /// How many bytes a second the calling thread reads by the widest vectors that are allowed. It is
    /// measured for `time`, after half of that to warm up: bytes that fit a cache come from there. 0
    /// for fewer bytes than some vectors have.
    pub fn rate(&mut self, cpu: &Cpu, time: Duration) -> f64 {
        #[cfg(target_arch = "x86_64")]
        let widest = {
            use crate::cpu::{Avx2, Avx512};
            self.by::<Avx512>(cpu, time).or_else(|| self.by::<Avx2>(cpu, time))
        };
        #[cfg(not(target_arch = "x86_64"))]
        let widest = None;
        widest.or_else(|| self.by::<Plain>(cpu, time)).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier::Tier;

    #[test]
    fn every_tier_reads_some_and_too_few_bytes_are_none() {
        let (cpu, time) = (Cpu::detect(), Duration::from_micros(200));
        let bytes = vec![1; 1 << 14];
        for tier in [Tier::Plain, Tier::Avx2, cpu.tier()] {
            let rate = Reader::new(&bytes).rate(&cpu.clone().limited_to(tier), time);
            // No core of the last decades reads less than a byte in ten cycles, or a thousand in one.
            assert!((1e8..1e13).contains(&rate), "{tier}: {rate} bytes a second");
        }
        let many = vec![1; 5 * PART / 2];
        let mut reader = Reader::new(&many);
        assert!(reader.rate(&cpu, time) > 0.0 && reader.next < 3, "part {}", reader.next);
        assert_eq!(Reader::new(&bytes[..3]).rate(&cpu, time), 0.0);
    }
}
