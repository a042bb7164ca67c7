//! Pseudo-random numbers: the same for the same seed, stream and index.

/// Value `i` of a stream, uniform in (0, 1).
pub fn unit(seed: u64, stream: u64, i: u64) -> f64 {
    let mut z = seed
        .wrapping_add(stream.wrapping_mul(0xD1B5_4A32_D192_ED03))
        .wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 40) as f64 + 0.5) / (1u64 << 24) as f64
}

/// The first `len` values of a stream, uniform in (lo, hi).
pub fn uniform(seed: u64, stream: u64, len: usize, lo: f64, hi: f64) -> Vec<f32> {
    (0..len as u64).map(|i| (lo + (hi - lo) * unit(seed, stream, i)) as f32).collect()
}

/// Fisher-Yates, the same order for the same seed.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (unit(13, seed, i as u64) * (i + 1) as f64) as usize);
    }
}
