//! A normal distribution of features: what statistics amount to.

/// Mean and covariance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Normal {
    pub mean: Vec<f64>,
    /// `[d, d]`, symmetric.
    pub covariance: Vec<f64>,
    /// Images that it is of; none where that is not known.
    pub count: Option<u64>,
}

impl Normal {
    pub fn dims(&self) -> usize {
        self.mean.len()
    }

    /// Variance of each feature.
    pub fn variances(&self) -> impl Iterator<Item = f64> {
        self.covariance.iter().copied().step_by(self.dims() + 1)
    }

    /// The most that the rank of the covariance can be.
    pub fn most_rank(&self) -> usize {
        let count = self.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        self.dims().min(count.saturating_sub(1))
    }
}
