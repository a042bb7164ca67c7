//! Statistics of features that come some rows at a time.

use std::borrow::Cow;
use std::path::Path;

use engine::InputError;

use crate::fid::error::FidError;
use crate::fid::moments::Moments;
use crate::fid::normal::Normal;
use crate::fid::npz;

/// Images whose products are summed at once: a matrix product that is fast, and not many features
/// in memory.
const BLOCK: usize = 256;

/// Mean and covariance of the features of images.
///
/// The sums are the same, bit by bit, whatever the number of rows that are added at once. They are
/// in f64, and take `8 dims²` bytes however many images there are.
#[derive(Clone, Debug)]
pub struct FidStatistics(Source);

#[derive(Clone, Debug)]
enum Source {
    /// Of so many images; `pending` are the features of the last ones, fewer than a block.
    Images { moments: Moments, pending: Vec<f32> },
    /// From a file that does not state how many.
    Given(Normal),
}

/// All that statistics consist of, to take them to another process: bit by bit, also where they
/// have no covariance yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FidState {
    /// Images that are summed; none where statistics are from a file that does not state it.
    pub count: Option<u64>,
    /// `[dims]`
    pub mean: Vec<f64>,
    /// `[dims, dims]`: sums of products, or the covariance where there is no count.
    pub products: Vec<f64>,
    /// Features of images that are not summed yet.
    pub pending: Vec<f32>,
}

impl FidStatistics {
    /// What they consist of.
    pub fn state(&self) -> FidState {
        match &self.0 {
            Source::Images { moments, pending } => {
                let [mean, products] = moments.state().map(<[f64]>::to_vec);
                FidState { count: Some(moments.count), mean, products, pending: pending.clone() }
            }
            Source::Given(Normal { mean, covariance, .. }) => {
                FidState { mean: mean.clone(), products: covariance.clone(), ..FidState::default() }
            }
        }
    }

    /// Those of a state.
    ///
    /// # Errors
    /// If its parts do not fit, or are not all finite.
    pub fn from_state(state: FidState) -> Result<Self, FidError> {
        let FidState { count, mean, products, pending } = state;
        let dims = mean.len();
        let fits = dims > 0
            && products.len() == dims * dims
            && pending.len().is_multiple_of(dims)
            && pending.len() < BLOCK * dims
            && (count.is_some() || pending.is_empty());
        let is_finite = mean.iter().chain(&products).all(|value| value.is_finite())
            && pending.iter().all(|value| value.is_finite());
        if !fits || !is_finite {
            let (products, pending) = (products.len(), pending.len());
            let found = format!("{dims} means, {products} products and {pending} features");
            return Err(FidError::State { found });
        }
        Ok(Self(match count {
            Some(count) => Source::Images { moments: Moments::from_state(count, mean, products), pending },
            None => Source::Given(Normal { mean, covariance: products, count: None }),
        }))
    }

    /// Those of no images, which have so many features each.
    ///
    /// # Panics
    /// If images have no features.
    pub fn new(dims: usize) -> Self {
        assert!(dims > 0, "images have features");
        Self(Source::Images { moments: Moments::new(dims), pending: Vec::new() })
    }

    /// Features of an image.
    pub fn dims(&self) -> usize {
        match &self.0 {
            Source::Images { moments, .. } => moments.dims(),
            Source::Given(normal) => normal.dims(),
        }
    }

    /// Images so far; none where they are from a file that does not state it.
    pub fn count(&self) -> Option<u64> {
        match &self.0 {
            Source::Images { moments, pending } => {
                Some(moments.count + (pending.len() / moments.dims()) as u64)
            }
            Source::Given(_) => None,
        }
    }

    /// Adds the features of images, `[n, dims]`, of any number n.
    ///
    /// # Errors
    /// If the values are not those of whole images or not all finite, and nothing is added; if the
    /// number of images before is not known.
    pub fn add(&mut self, features: &[f32]) -> Result<(), FidError> {
        let dims = self.dims();
        let Source::Images { moments, pending } = &mut self.0 else { return Err(FidError::NoCount) };
        if !features.len().is_multiple_of(dims) {
            return Err(FidError::Rows { found: features.len(), dims });
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            return Err(FidError::NotFinite { found: features[at], image: at / dims, feature: at % dims });
        }
        let mut rest = features;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(rest.len().min(BLOCK * dims - pending.len()));
            pending.extend_from_slice(part);
            rest = later;
            if pending.len() == BLOCK * dims {
                moments.add(pending);
                pending.clear();
            }
        }
        Ok(())
    }

    /// Adds the images of others: counts, means and co-moments are united without loss, but for
    /// rounding.
    ///
    /// # Errors
    /// If the others have another number of features, or one of both does not know its number of
    /// images.
    pub fn merge(&mut self, other: &Self) -> Result<(), FidError> {
        let (found, expected) = (other.dims(), self.dims());
        if found != expected {
            return Err(FidError::Dims { found, expected });
        }
        let others = other.moments().ok_or(FidError::NoCount)?;
        let Source::Images { moments, pending } = &mut self.0 else { return Err(FidError::NoCount) };
        moments.add(pending);
        pending.clear();
        moments.merge(&others);
        Ok(())
    }

    /// The mean of each feature; zeros of no images.
    pub fn mean(&self) -> Vec<f64> {
        match (&self.0, self.moments()) {
            (Source::Given(normal), _) => normal.mean.clone(),
            (_, moments) => moments.map(|moments| moments.mean().to_vec()).unwrap_or_default(),
        }
    }

    /// The covariance `[dims, dims]`, unbiased: sums of products over the number of images less
    /// one, as numpy's `cov`.
    ///
    /// # Errors
    /// If there are fewer than 2 images.
    pub fn covariance(&self) -> Result<Vec<f64>, FidError> {
        Ok(self.normal()?.into_owned().covariance)
    }

    /// Reads an `.npz` file with `mu` `[dims]` and `sigma` `[dims, dims]` of float64 or float32, as
    /// pytorch-fid, clean-fid and [`FidStatistics::write`] write it.
    ///
    /// # Errors
    /// If it is no such file, or damaged; if `sigma` is no covariance: not symmetric, a variance
    /// below 0, not finite.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, InputError> {
        let normal = npz::read(path.as_ref())?;
        Ok(Self(match normal.count {
            Some(count) => Source::Images { moments: Moments::of(normal, count), pending: Vec::new() },
            None => Source::Given(normal),
        }))
    }

    /// Writes an `.npz` file that pytorch-fid and others read: `mu`, `sigma`, and the number of
    /// images as `count`. The file is there whole or not at all.
    ///
    /// # Errors
    /// If there are fewer than 2 images, or the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), FidError> {
        Ok(npz::write(path.as_ref(), &*self.normal()?)?)
    }

    /// The moments of all images.
    fn moments(&self) -> Option<Cow<'_, Moments>> {
        match &self.0 {
            Source::Images { moments, pending } if pending.is_empty() => Some(Cow::Borrowed(moments)),
            Source::Images { moments, pending } => {
                let mut all = moments.clone();
                all.add(pending);
                Some(Cow::Owned(all))
            }
            Source::Given(_) => None,
        }
    }

    pub(super) fn normal(&self) -> Result<Cow<'_, Normal>, FidError> {
        match (&self.0, self.moments()) {
            (Source::Given(normal), _) => Ok(Cow::Borrowed(normal)),
            (_, Some(moments)) if moments.count >= 2 => Ok(Cow::Owned(moments.normal())),
            (_, moments) => Err(FidError::TooFew { found: moments.map_or(0, |moments| moments.count) }),
        }
    }
}
