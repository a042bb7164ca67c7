//! One-dimensional Winograd (Toom-Cook) transforms F(m, r): `m` outputs of an `r`-tap correlation from
//! `n = m + r - 1` products.
//!
//! ```text
//! y = At ((G g) * (Bt d))        S. Winograd 1980; A. Lavin and S. Gray, "Fast Algorithms for
//!                                Convolutional Neural Networks", 2016
//! ```
//!
//! With the points `0, +-p_1, .., +-p_P, infinity` and `M(x) = x * prod (x^2 - p_j^2)`, the rows of `Bt`
//! are the coefficients of `M(x) / (x - a)` for each finite point `a`, and of `M(x)` for infinity. For
//! a pair of points they share their even and their odd part,
//!
//! ```text
//! M(x) / (x -+ p_i) = x^2 q_i(x^2) +- p_i x q_i(x^2),     q_i(z) = prod over j != i of (z - p_j^2)
//! ```
//!
//! so that a pair costs two short sums, one addition and one subtraction. `G` holds the powers of each
//! point over `prod (a - b)` for all other finite points `b`, `At` the powers.

use crate::cpu::Isa;

/// The largest number of pairs of points.
const MAX_PAIRS: usize = 4;

/// The coefficients of F(m, r).
#[derive(Clone, Debug)]
pub struct Transform {
    /// Outputs of a tile.
    pub m: usize,
    /// Taps.
    pub r: usize,
    /// Products, `m + r - 1`; 1 for the identity F(1, 1).
    pub n: usize,
    /// Positive point of each pair.
    points: [f32; MAX_PAIRS],
    /// Coefficients of `q_i`, from the lowest power.
    even: [[f32; MAX_PAIRS]; MAX_PAIRS],
    /// Those of `p_i q_i`.
    odd: [[f32; MAX_PAIRS]; MAX_PAIRS],
    /// Coefficients of `prod (z - p_j^2)`.
    whole: [f32; MAX_PAIRS + 1],
    /// `G`, `n` rows of `r`.
    filter: Vec<Vec<f64>>,
}

/// Points besides 0 and infinity, chosen for small errors: one of each pair.
fn points(m: usize, r: usize, dimensions: usize) -> &'static [f64] {
    match (m + r - 1, dimensions) {
        (4, _) => &[1.0],
        (6, 2) => &[0.5, 1.5],
        (6, _) => &[1.0, 2.0],
        (8, _) => &[1.0, 2.0, 0.5],
        (10, _) => &[0.5, 0.75, 4.0 / 3.0, 2.0],
        (n, _) => unreachable!("no points for {n} products"),
    }
}

/// Coefficients of `prod (z - root)`, from the lowest power.
fn from_roots(roots: impl Iterator<Item = f64>) -> Vec<f64> {
    roots.fold(vec![1.0], |poly, root| {
        let mut next = vec![0.0; poly.len() + 1];
        for (power, c) in poly.iter().enumerate() {
            next[power + 1] += c;
            next[power] -= root * c;
        }
        next
    })
}

impl Transform {
    /// F(m, r) as one of `dimensions` transforms; F(1, 1) is the identity.
    ///
    /// # Panics
    /// If `m + r - 1` is neither 1 nor an even number from 4 to 10.
    pub fn new(m: usize, r: usize, dimensions: usize) -> Self {
        let n = m + r - 1;
        let pairs = if n == 1 { &[] } else { points(m, r, dimensions) };
        let others = |i: usize| pairs.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, p)| p * p);
        let mut t = Self {
            m,
            r,
            n,
            points: [0.0; MAX_PAIRS],
            even: [[0.0; MAX_PAIRS]; MAX_PAIRS],
            odd: [[0.0; MAX_PAIRS]; MAX_PAIRS],
            whole: [0.0; MAX_PAIRS + 1],
            filter: Vec::new(),
        };
        if n == 1 {
            t.filter.push(vec![1.0]);
            return t;
        }
        for (i, &p) in pairs.iter().enumerate() {
            t.points[i] = p as f32;
            for (j, c) in from_roots(others(i)).into_iter().enumerate() {
                t.even[i][j] = c as f32;
                t.odd[i][j] = (p * c) as f32;
            }
        }
        for (j, c) in from_roots(pairs.iter().map(|p| p * p)).into_iter().enumerate() {
            t.whole[j] = c as f32;
        }
        let finite: Vec<f64> = [0.0].into_iter().chain(pairs.iter().flat_map(|&p| [p, -p])).collect();
        for &a in &finite {
            let scale: f64 = finite.iter().filter(|&&b| b != a).map(|b| a - b).product();
            t.filter.push((0..r).map(|k| a.powi(k as i32) / scale).collect());
        }
        t.filter.push((0..r).map(|k| if k == r - 1 { 1.0 } else { 0.0 }).collect());
        t
    }

    /// Row `point` of `G`: a coefficient a tap.
    pub fn filter_row(&self, point: usize) -> &[f64] {
        &self.filter[point]
    }

    /// `Bt d`.
    #[inline(always)]
    pub fn input<I: Isa, const N: usize>(&self, isa: I, d: [I::f32s; N]) -> [I::f32s; N] {
        if N == 1 {
            return d;
        }
        let pairs = (N - 2) / 2;
        let splat = |c: f32| isa.splat_f32s(c);
        let mut out = d;
        let mut first = isa.mul_f32s(splat(self.whole[0]), d[0]);
        let mut last = isa.mul_f32s(splat(self.whole[0]), d[1]);
        for j in 1..pairs {
            first = isa.fma(splat(self.whole[j]), d[2 * j], first);
            last = isa.fma(splat(self.whole[j]), d[2 * j + 1], last);
        }
        out[0] = isa.add_f32s(first, d[2 * pairs]);
        out[N - 1] = isa.add_f32s(last, d[2 * pairs + 1]);
        for i in 0..pairs {
            let mut even = d[2 * pairs];
            let mut odd = isa.mul_f32s(splat(self.points[i]), d[2 * pairs - 1]);
            for j in 0..pairs - 1 {
                even = isa.fma(splat(self.even[i][j]), d[2 + 2 * j], even);
                odd = isa.fma(splat(self.odd[i][j]), d[1 + 2 * j], odd);
            }
            out[1 + 2 * i] = isa.add_f32s(even, odd);
            out[2 + 2 * i] = isa.sub_f32s(even, odd);
        }
        out
    }

    /// `At x`, of which the first `M` are the result.
    #[inline(always)]
    pub fn output<I: Isa, const N: usize, const M: usize>(&self, isa: I, x: [I::f32s; N]) -> [I::f32s; M] {
        if N == 1 {
            return [x[0]; M];
        }
        let pairs = (N - 2) / 2;
        let mut out = [isa.splat_f32s(0.0); M];
        out[0] = x[0];
        out[M - 1] = x[N - 1];
        for i in 0..pairs {
            let (plus, minus) = (x[1 + 2 * i], x[2 + 2 * i]);
            let (mut even, mut odd) = (isa.add_f32s(plus, minus), isa.sub_f32s(plus, minus));
            let p = isa.splat_f32s(self.points[i]);
            let square = isa.mul_f32s(p, p);
            odd = isa.mul_f32s(p, odd);
            for (k, out) in out.iter_mut().enumerate() {
                let power = if k % 2 == 0 { &mut even } else { &mut odd };
                *out = isa.add_f32s(*out, *power);
                *power = isa.mul_f32s(square, *power);
            }
        }
        out
    }
}
