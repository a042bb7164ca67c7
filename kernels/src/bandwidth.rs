//! Bytes a second that a core reads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::cpu::{Cpu, Isa, Plain};

/// Independent results: enough for all loads that a core has under way.
const SUMS: usize = 8;

/// Bytes that are read between two looks whether all were.
const PART: usize = 1 << 16;

/// Bytes that are read between two looks at the clock.
const UNTIMED: usize = 1 << 18;

struct Reader<'a, I> {
    isa: I,
    bytes: &'a [u8],
    time: Duration,
}

/// Reads parts in turn; bytes a second. What it reads is at least a group of vectors.
#[inline(always)]
fn rate<'a, I: Isa>(isa: I, parts: &mut impl Iterator<Item = &'a [u8]>, time: Duration) -> f64 {
    let mut sums = [isa.splat_u8s(0); SUMS];
    let (start, mut read, mut look) = (Instant::now(), 0, UNTIMED);
    for part in parts {
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

impl<I: Isa> pulp::WithSimd for Reader<'_, I> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
        let Self { isa, bytes, time } = self;
        let group = SUMS * I::U8_LANES;
        let bytes = &bytes[..bytes.len() / group * group];
        if bytes.is_empty() {
            return 0.0;
        }
        let mut parts = bytes.chunks(PART).cycle();
        // The first reads move the bytes to where they fit; they do not count.
        rate(isa, &mut parts, time / 2);
        rate(isa, &mut parts, time)
    }
}

fn by<I: Isa>(cpu: &Cpu, bytes: &[u8], time: Duration) -> Option<f64> {
    I::new(cpu).ok().map(|isa| isa.vectorize(Reader { isa, bytes, time }))
}

/// How many bytes a second the calling thread reads, in order and again and again, by the widest
/// vectors that are allowed. It is measured for `time`, after half of that to warm up: bytes that
/// fit a cache come from there. 0 for fewer bytes than some vectors have.
pub fn read_rate(cpu: &Cpu, bytes: &[u8], time: Duration) -> f64 {
    #[cfg(target_arch = "x86_64")]
    let widest = {
        use crate::cpu::{Avx2, Avx512};
        by::<Avx512>(cpu, bytes, time).or_else(|| by::<Avx2>(cpu, bytes, time))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let widest = None;
    widest.or_else(|| by::<Plain>(cpu, bytes, time)).unwrap_or(0.0)
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
            let rate = read_rate(&cpu.clone().limited_to(tier), &bytes, time);
            // No core of the last decades reads less than a byte in ten cycles, or a thousand in one.
            assert!((1e8..1e13).contains(&rate), "{tier}: {rate} bytes a second");
        }
        assert_eq!(read_rate(&cpu, &bytes[..3], time), 0.0);
    }
}
