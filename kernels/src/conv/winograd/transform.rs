//! One-dimensional fast algorithms F(m, r): `m` outputs of an `r`-tap filter from `n` products.
//!
//! ```text
//! y = At ((G g) * (Bt d))        S. Winograd 1980; A. Lavin and S. Gray, "Fast Algorithms for
//!                                Convolutional Neural Networks", 2016
//! ```
//!
//! **Stride 1** is Toom-Cook, `n = m + r - 1`, on the points `+-p_1, .., +-p_P`, infinity, and for
//! even `n` also 0. `M` is the product of `x - a` over the finite points `a`; the rows of `Bt` are
//! the coefficients of `M(x) / (x - a)`, and of `M(x)` for infinity. The two points of a pair share
//! their even and their odd part; with `q_i(z) = prod over j != i of (z - p_j^2)`
//!
//! ```text
//! even n    M(x) = x prod (x^2 - p_j^2)      M(x) / (x -+ p_i) = x^2 q_i(x^2) +- p_i x q_i(x^2)
//! odd n     M(x) =   prod (x^2 - p_j^2)      M(x) / (x -+ p_i) = x q_i(x^2)   +- p_i q_i(x^2)
//! ```
//!
//! so that a pair costs two short sums, one addition and one subtraction. `G` holds the powers of
//! each point over `prod (a - b)` for all other finite points `b`, `At` the powers.
//!
//! **Stride 2** with three taps splits the samples by parity: the even ones go through F(m, 2) with
//! the outer taps, the odd ones are multiplied by the middle tap; `n = 2m + 1` products, not `3m`.
//!
//! The coefficients are constants of the types, so that the compiler sees ones and unrolls.

use crate::cpu::Isa;

const MAX_PAIRS: usize = 5;
const MAX_PRODUCTS: usize = 12;
const MAX_TAPS: usize = 7;

/// The coefficients of F(m, r).
#[derive(Clone, Copy, Debug)]
pub struct Transform {
    /// Outputs of a tile.
    pub m: usize,
    /// Taps.
    pub r: usize,
    /// Samples from one output to the next: 1, or 2 for three taps.
    pub stride: usize,
    /// Products, and samples of a tile; 1 for the identity F(1, 1).
    pub n: usize,
    /// Products of the Toom-Cook part: all for stride 1, those of the even samples for stride 2.
    toom: usize,
    pairs: usize,
    /// 0 is one of the points.
    zero: bool,
    /// Positive point of each pair.
    points: [f64; MAX_PAIRS],
    /// Coefficients of `q_i`, from the lowest power.
    q: [[f64; MAX_PAIRS]; MAX_PAIRS],
    /// Coefficients of `prod (z - p_j^2)`.
    whole: [f64; MAX_PAIRS + 1],
    /// `G` of the Toom-Cook part.
    filter: [[f64; MAX_TAPS]; MAX_PRODUCTS],
}

/// The positive point of each pair, found by search for the least error of whole convolutions; all
/// are short binary fractions, so that their coefficients are exact.
const fn points(n: usize) -> &'static [f64] {
    match n {
        1 => &[],
        3 | 4 => &[1.0],
        5 => &[0.5, 1.25],
        6 => &[0.625, 1.5],
        7 => &[0.25, 0.875, 1.75],
        8 => &[0.5, 1.0, 2.0],
        9 => &[0.25, 0.625, 1.25, 2.0],
        10 => &[0.375, 0.75, 1.25, 2.5],
        11 => &[0.25, 0.625, 0.875, 1.5, 2.75],
        12 => &[0.375, 0.6875, 1.0, 1.5, 3.0],
        _ => panic!("a fast algorithm has 3 to 12 products"),
    }
}

/// Coefficients of the product of `z - p^2` over all points but number `without`, from the lowest
/// power.
const fn product(points: &[f64], without: usize) -> [f64; MAX_PAIRS + 1] {
    let mut poly = [0.0; MAX_PAIRS + 1];
    poly[0] = 1.0;
    let mut j = 0;
    while j < points.len() {
        if j != without {
            let root = points[j] * points[j];
            let mut power = MAX_PAIRS;
            while power > 0 {
                poly[power] = poly[power - 1] - root * poly[power];
                power -= 1;
            }
            poly[0] *= -root;
        }
        j += 1;
    }
    poly
}

impl Transform {
    /// F(m, r) for a stride; F(1, 1) is the identity.
    ///
    /// # Panics
    /// If there are fewer than 3 or over 12 products, or the stride is 2 with other than 3 taps.
    pub const fn new(m: usize, r: usize, stride: usize) -> Self {
        let (n, taps) = match (m, r, stride) {
            (1, 1, _) => (1, 1),
            (_, _, 1) => (m + r - 1, r),
            (_, 3, 2) => (2 * m + 1, 2),
            _ => panic!("stride 2 is for three taps"),
        };
        let toom = m + taps - 1;
        let pairs = points(toom);
        let mut t = Self {
            m,
            r,
            stride,
            n,
            toom,
            pairs: pairs.len(),
            zero: toom.is_multiple_of(2),
            points: [0.0; MAX_PAIRS],
            q: [[0.0; MAX_PAIRS]; MAX_PAIRS],
            whole: product(pairs, usize::MAX),
            filter: [[1.0; MAX_TAPS]; MAX_PRODUCTS],
        };
        // The finite points, in the order of their products.
        let mut finite = [0.0; MAX_PRODUCTS];
        let first = t.zero as usize;
        let mut i = 0;
        while i < pairs.len() {
            t.points[i] = pairs[i];
            let q = product(pairs, i);
            let mut j = 0;
            while j < MAX_PAIRS {
                t.q[i][j] = q[j];
                j += 1;
            }
            finite[first + 2 * i] = pairs[i];
            finite[first + 2 * i + 1] = -pairs[i];
            i += 1;
        }
        let mut a = 0;
        while a < toom {
            let infinity = a == toom - 1;
            let mut scale = 1.0;
            let mut b = 0;
            while b < toom - 1 && !infinity {
                if b != a {
                    scale *= finite[a] - finite[b];
                }
                b += 1;
            }
            let mut power = 1.0;
            let mut k = 0;
            while k < taps {
                t.filter[a][k] = if infinity { (k == taps - 1) as u8 as f64 } else { power / scale };
                power *= finite[a];
                k += 1;
            }
            a += 1;
        }
        t
    }

    /// Coefficient of tap `k` in product `point`: an element of `G`.
    pub fn filter(&self, point: usize, k: usize) -> f64 {
        match self.stride {
            1 => self.filter[point][k],
            _ if point < self.toom => [self.filter[point][0], 0.0, self.filter[point][1]][k],
            _ => [0.0, 1.0, 0.0][k],
        }
    }

    /// The sum of the magnitudes of the coefficients of a product's samples: of a row of `Bt`.
    pub fn input_sum(&self, point: usize) -> f64 {
        let (zero, sum) = (self.zero as usize, |values: &[f64]| values.iter().map(|v| v.abs()).sum::<f64>());
        if self.n == 1 || point >= self.toom {
            return 1.0;
        }
        if point == self.toom - 1 || self.zero && point == 0 {
            return sum(&self.whole);
        }
        let pair = (point - zero) / 2;
        sum(&self.q[pair]) * (1.0 + self.points[pair])
    }

    /// How much larger than that of a direct sum the RMS error of the outputs is along one axis:
    /// the root of `sum over i of |At_i|^2 |G_i|^2 |Bt_i|^2 / (1.5 m r)`, norms of columns of `At`
    /// and of rows, at least 1. Errors of products are assumed to be independent and relative to
    /// the root mean square of their sums; the 1.5 is for direct sums, which are longer.
    pub fn growth(&self) -> f64 {
        let (m, stride) = (self.m, self.stride);
        if self.n == 1 {
            return 1.0;
        }
        let zero = self.zero as usize;
        let square = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
        let product = |i: usize| {
            let (input, output) = if i == self.toom - 1 || self.zero && i == 0 {
                (square(&self.whole), 1.0)
            } else {
                let (q, p) = (&self.q[(i - zero) / 2], self.points[(i - zero) / 2]);
                let powers: f64 = (0..m).map(|k| p.powi(2 * k as i32)).sum();
                (square(q) * (1.0 + p * p), powers)
            };
            input * output * square(&self.filter[i][..self.r + 1 - stride])
        };
        let odd = if stride == 2 { m as f64 } else { 0.0 };
        (((0..self.toom).map(product).sum::<f64>() + odd) / (1.5 * (m * self.r) as f64)).sqrt().max(1.0)
    }

    /// `Bt d`.
    #[inline(always)]
    fn input<I: Isa, const N: usize>(&self, isa: I, d: [I::f32s; N]) -> [I::f32s; N] {
        if N == 1 {
            return d;
        }
        let mut out = d;
        let (zero, pairs, step) = (self.zero as usize, self.pairs, self.stride);
        if self.zero {
            out[0] = dot(isa, &self.whole, pairs, &d, [0, step], 1.0);
        }
        out[self.toom - 1] = dot(isa, &self.whole, pairs, &d, [zero, step], 1.0);
        for i in 0..pairs {
            let outer = dot(isa, &self.q[i], pairs - 1, &d, [zero + 1, step], 1.0);
            let inner = dot(isa, &self.q[i], pairs - 1, &d, [zero, step], self.points[i]);
            out[zero + 2 * i] = isa.add_f32s(outer, inner);
            out[zero + 2 * i + 1] = isa.sub_f32s(outer, inner);
        }
        if self.stride == 2 {
            for k in 0..self.m {
                out[self.toom + k] = d[2 * k + 1];
            }
        }
        out
    }

    /// `At x`.
    #[inline(always)]
    fn output<I: Isa, const N: usize, const M: usize>(&self, isa: I, x: [I::f32s; N]) -> [I::f32s; M] {
        if N == 1 {
            return [x[0]; M];
        }
        let mut sums = [None; M];
        if self.stride == 2 {
            for (k, sum) in sums.iter_mut().enumerate() {
                *sum = Some(x[self.toom + k]);
            }
        }
        let zero = self.zero as usize;
        if self.zero {
            add(isa, &mut sums[0], x[0]);
        }
        add(isa, &mut sums[M - 1], x[self.toom - 1]);
        for i in 0..self.pairs {
            let (plus, minus) = (x[zero + 2 * i], x[zero + 2 * i + 1]);
            let parts = [isa.add_f32s(plus, minus), isa.sub_f32s(plus, minus)];
            let mut power = 1.0;
            for (k, sum) in sums.iter_mut().enumerate() {
                let splat = isa.splat_f32s(power as f32);
                *sum = Some(match *sum {
                    Some(sum) => isa.fma(splat, parts[k % 2], sum),
                    None => isa.mul_f32s(splat, parts[k % 2]),
                });
                power *= self.points[i];
            }
        }
        let mut out = [x[0]; M];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum.unwrap_or(*out);
        }
        out
    }
}

/// `scale * (c[0] d[0] + .. + c[last - 1] d[last - 1] + d[last])` of every second sample from
/// `first` on, where `step` elements lie between neighbours.
#[inline(always)]
fn dot<I: Isa>(
    isa: I,
    c: &[f64],
    last: usize,
    d: &[I::f32s],
    [first, step]: [usize; 2],
    scale: f64,
) -> I::f32s {
    let mut sum = isa.mul_f32s(isa.splat_f32s(scale as f32), d[step * (first + 2 * last)]);
    for j in 0..last {
        sum = isa.fma(isa.splat_f32s((scale * c[j]) as f32), d[step * (first + 2 * j)], sum);
    }
    sum
}

/// Adds a term to a sum that may be empty.
#[inline(always)]
fn add<I: Isa>(isa: I, sum: &mut Option<I::f32s>, term: I::f32s) {
    *sum = Some(match *sum {
        Some(sum) => isa.add_f32s(sum, term),
        None => term,
    });
}

/// The transform of `N` samples to `M` outputs at stride `U`, with constant coefficients.
pub struct Fixed<const N: usize, const M: usize, const U: usize>;

impl<const N: usize, const M: usize, const U: usize> Fixed<N, M, U> {
    const T: Transform = Transform::new(M, if N == 1 { 1 } else { N - U * (M - 1) }, U);

    /// `Bt d`.
    #[inline(always)]
    pub fn input<I: Isa>(isa: I, d: [I::f32s; N]) -> [I::f32s; N] {
        const { Self::T }.input(isa, d)
    }

    /// `At x`.
    #[inline(always)]
    pub fn output<I: Isa>(isa: I, x: [I::f32s; N]) -> [I::f32s; M] {
        const { Self::T }.output(isa, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Plain;

    /// The sums of the magnitudes of the rows of `Bt`, by its columns: transforms of single
    /// samples.
    fn check<const N: usize, const M: usize, const U: usize>() {
        let isa = Plain::detect().expect("every processor has it");
        let mut sums = [0.0f64; N];
        for sample in 0..N {
            let samples: [_; N] = std::array::from_fn(|at| {
                let value: [f32; 4] = [(at == sample) as u8 as f32; 4];
                pulp::cast(value)
            });
            for (sum, vector) in sums.iter_mut().zip(Fixed::<N, M, U>::input(isa, samples)) {
                let [value, ..]: [f32; 4] = pulp::cast(vector);
                *sum += f64::from(value.abs());
            }
        }
        for (point, sum) in sums.into_iter().enumerate() {
            let found = Fixed::<N, M, U>::T.input_sum(point);
            assert!((found / sum - 1.0).abs() < 1e-6, "F({M}) of {N}, point {point}: {found} for {sum}");
        }
    }

    #[test]
    fn no_transformed_sample_is_larger_than_the_sum_of_its_coefficients() {
        check::<1, 1, 1>();
        check::<4, 2, 1>();
        check::<5, 3, 1>();
        check::<6, 4, 1>();
        check::<8, 6, 1>();
        check::<9, 5, 1>();
        check::<12, 6, 1>();
        check::<5, 2, 2>();
        check::<9, 4, 2>();
    }
}
