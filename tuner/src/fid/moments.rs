//! Count, mean and co-moments of rows, which are updated by further rows and by those of others.
//!
//! Of two sets a and b with means at a distance δ, the co-moments of both are the sum of the
//! co-moments of each and δδᵀ times a b / (a + b). Source: T. F. Chan, G. H. Golub and R. J.
//! LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

use crate::fid::normal::Normal;

#[derive(Clone, Debug)]
pub(super) struct Moments {
    /// Rows so far.
    pub count: u64,
    mean: Vec<f64>,
    /// Sums of products of deviations from the mean, `[d, d]`: the lower triangle alone, column by
    /// column.
    products: Vec<f64>,
}

impl Moments {
    pub fn new(dims: usize) -> Self {
        Self { count: 0, mean: vec![0.0; dims], products: vec![0.0; dims * dims] }
    }

    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    /// Those that have such a mean and covariance.
    pub fn of(normal: Normal, count: u64) -> Self {
        let Normal { mean, mut covariance, .. } = normal;
        covariance.iter_mut().for_each(|value| *value *= count.saturating_sub(1) as f64);
        Self { count, mean, products: covariance }
    }

    /// Those of a state: count, mean, and products as [`Self::state`] gives them.
    pub fn from_state(count: u64, mean: Vec<f64>, products: Vec<f64>) -> Self {
        Self { count, mean, products }
    }

    /// Mean, and sums of products `[d, d]`.
    pub fn state(&self) -> [&[f64]; 2] {
        [&self.mean, &self.products]
    }

    /// Adds rows `[n, d]`, of which the products are summed at once.
    pub fn add(&mut self, rows: &[f32]) {
        let (dims, count) = (self.dims(), rows.len() / self.dims());
        if count == 0 {
            return;
        }
        let mut mean = vec![0.0; dims];
        for row in rows.chunks_exact(dims) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let deviation = |(value, mean): (&f32, &f64)| f64::from(*value) - mean;
        let mut deviations: Vec<f64> = Vec::with_capacity((count + 1) * dims);
        for row in rows.chunks_exact(dims) {
            deviations.extend(row.iter().zip(&mean).map(deviation));
        }
        deviations.extend(self.join(count as u64, &mean));
        self.add_products(&deviations);
    }

    /// Adds the rows of others.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let deviation = self.join(other.count, &other.mean);
        self.products.iter_mut().zip(&other.products).for_each(|(sum, product)| *sum += product);
        self.add_products(&deviation);
    }

    /// Takes count and mean of others, and gives the deviation whose products stand for the
    /// distance of the two means.
    fn join(&mut self, count: u64, mean: &[f64]) -> Vec<f64> {
        let (own, others) = (self.count as f64, count as f64);
        let (weight, share) = ((own * others / (own + others)).sqrt(), others / (own + others));
        self.count += count;
        let join = |(own, other): (&mut f64, &f64)| {
            let distance = other - *own;
            *own += distance * share;
            distance * weight
        };
        self.mean.iter_mut().zip(mean).map(join).collect()
    }

    /// Adds the products of deviations `[n, d]`.
    fn add_products(&mut self, deviations: &[f64]) {
        let dims = self.dims();
        let columns = MatRef::from_column_major_slice(deviations, dims, deviations.len() / dims);
        let rectangular = BlockStructure::Rectangular;
        triangular::matmul(
            MatMut::from_column_major_slice_mut(&mut self.products, dims, dims),
            BlockStructure::TriangularLower,
            Accum::Add,
            columns,
            rectangular,
            columns.transpose(),
            rectangular,
            1.0,
            Par::Seq,
        );
    }

    /// Mean and unbiased covariance, of at least 2 rows.
    pub fn normal(&self) -> Normal {
        let (dims, divisor) = (self.dims(), self.count.saturating_sub(1) as f64);
        let at =
            |row: usize, column: usize| self.products[row.min(column) * dims + row.max(column)] / divisor;
        let covariance = (0..dims).flat_map(|row| (0..dims).map(move |column| at(row, column))).collect();
        Normal { mean: self.mean.clone(), covariance, count: Some(self.count) }
    }

    pub fn mean(&self) -> &[f64] {
        &self.mean
    }
}
