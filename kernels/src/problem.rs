//! What is to be computed: a convolution, a pool, a softmax or a sigmoid, as shapes and nothing
//! else.
//!
//! All extents are in elements. Activations are `[n, h, w, c]`, filters `[r, s, c, k]` (HWIO).

use crate::error::Unsupported;
use crate::shape::{Padding, Shape};

/// The largest number of segments of a problem.
pub const MAX_SEGMENTS: usize = 8;

/// What happens to an output channel after the sum of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Add the filter's folded bias.
    pub bias: bool,
    /// Clamp at zero from below, after the bias.
    pub relu: bool,
}

impl Epilogue {
    /// Nothing after the sum.
    pub const NONE: Self = Self { bias: false, relu: false };
    /// Bias, then ReLU: the end of every convolution of InceptionV3.
    pub const BIAS_RELU: Self = Self { bias: true, relu: true };
    /// Bias alone: a dense layer.
    pub const BIAS: Self = Self { bias: true, relu: false };
}

/// A range of output channels with an epilogue and a destination.
///
/// The segments of a problem lie one after the other along the output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Number of output channels.
    pub channels: usize,
    /// What follows the sum.
    pub epilogue: Epilogue,
}

/// The geometry that convolutions and pools share: a window that slides over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Rows and columns between two neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
}

impl Window {
    /// A window with Keras's `valid` padding: none.
    pub fn valid(kernel: [usize; 2], stride: [usize; 2]) -> Self {
        Self { kernel, stride, padding: Padding::default() }
    }

    /// Height and width of the output over an image of the given height and width.
    pub fn output(&self, image: [usize; 2]) -> [usize; 2] {
        let p = &self.padding;
        let padded = [image[0] + p.top + p.bottom, image[1] + p.left + p.right];
        [0, 1].map(|axis| (padded[axis] - self.kernel[axis]) / self.stride[axis] + 1)
    }
}

/// A convolution (cross-correlation, as every framework means the word).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub image: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Kernel, stride and padding.
    pub window: Window,
    /// Output channels, in order.
    pub segments: Vec<Segment>,
}

impl Conv {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        self.window.output(self.image)
    }

    /// Output channels of all segments.
    pub fn filters(&self) -> usize {
        self.segments.iter().map(|s| s.channels).sum()
    }

    /// Products summed for one output: `r * s * c`.
    pub fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    /// Multiply-adds of a direct computation of the whole batch.
    pub fn multiply_adds(&self) -> u64 {
        let [oh, ow] = self.output();
        (self.batch * oh * ow) as u64 * self.depth() as u64 * self.filters() as u64
    }

    /// Output pixels of `n` images.
    pub(crate) fn output_pixels(&self, n: usize) -> usize {
        self.output().into_iter().product::<usize>() * n
    }

    /// Image, row and column of an output pixel, counted through all images.
    #[inline(always)]
    pub(crate) fn output_pixel(&self, index: usize) -> [usize; 3] {
        let [oh, ow] = self.output();
        [index / (oh * ow), index / ow % oh, index % ow]
    }

    /// Row and column of the first tap of an output pixel; negative in the padding.
    #[inline(always)]
    pub(crate) fn first_tap(&self, y: usize, x: usize) -> [isize; 2] {
        let Window { stride, padding, .. } = self.window;
        [(y * stride[0]) as isize - padding.top as isize, (x * stride[1]) as isize - padding.left as isize]
    }

    /// Kernel `[1, 1]`, stride 1, no padding.
    pub fn is_pointwise(&self) -> bool {
        self.window == Window::valid([1, 1], [1, 1])
    }
}

/// What a pool does with the pixels of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest; padding never wins.
    Max,
    /// The mean over the pixels inside the image: Keras and TensorFlow.
    Average,
    /// The mean over the whole window, padding counted as zeros: torchvision's default.
    AverageCountingBorder,
}

/// A pool.
///
/// Its epilogue lets a pointwise convolution go before a mean that it follows: both are linear and
/// may change places, while bias and ReLU stay last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub image: [usize; 2],
    /// Channels, in and out.
    pub channels: usize,
    /// Kernel, stride and padding.
    pub window: Window,
    /// Maximum or mean.
    pub kind: PoolKind,
    /// What follows.
    pub epilogue: Epilogue,
}

impl Pool {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        self.window.output(self.image)
    }
}

/// One problem, as kernels see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// A convolution; a dense layer is one over a 1x1 image.
    Conv(Conv),
    /// A pool; global pooling has the image as its window.
    Pool(Pool),
    /// `exp(x - max) / sum` over the channels of each pixel.
    Softmax {
        /// Images, of one pixel each.
        batch: usize,
        /// Channels.
        channels: usize,
    },
    /// `1 / (1 + exp(-x))` of each channel.
    Sigmoid {
        /// Images, of one pixel each.
        batch: usize,
        /// Channels.
        channels: usize,
    },
}

impl Problem {
    /// The convolution, or the refusal of a kernel that takes nothing else.
    pub fn as_conv(&self) -> Result<&Conv, Unsupported> {
        match self {
            Self::Conv(conv) => Ok(conv),
            _ => Err(Unsupported::Kind("convolutions")),
        }
    }

    /// The pool, or the refusal of a kernel that takes nothing else.
    pub fn as_pool(&self) -> Result<&Pool, Unsupported> {
        match self {
            Self::Pool(pool) => Ok(pool),
            _ => Err(Unsupported::Kind("pools")),
        }
    }

    /// Shape of the input.
    pub fn src(&self) -> Shape {
        match self {
            Self::Conv(p) => Shape::new(p.batch, p.image, p.channels),
            Self::Pool(p) => Shape::new(p.batch, p.image, p.channels),
            Self::Softmax { batch, channels } | Self::Sigmoid { batch, channels } => {
                Shape::new(*batch, [1, 1], *channels)
            }
        }
    }

    /// Shapes of the destinations, one a segment.
    pub fn dst(&self) -> Vec<Shape> {
        match self {
            Self::Conv(p) => p.segments.iter().map(|s| Shape::new(p.batch, p.output(), s.channels)).collect(),
            Self::Pool(p) => vec![Shape::new(p.batch, p.output(), p.channels)],
            Self::Softmax { .. } | Self::Sigmoid { .. } => vec![self.src()],
        }
    }

    /// Dimensions of the filters that it takes: one a segment of a convolution, and for a pool with
    /// a bias one without taps ([`crate::filter::Filter::without_weights`]).
    pub fn filter_dims(&self) -> Vec<[usize; 4]> {
        match self {
            Self::Conv(p) => {
                let [r, s] = p.window.kernel;
                p.segments.iter().map(|segment| [r, s, p.channels, segment.channels]).collect()
            }
            Self::Pool(p) if p.epilogue.bias => vec![[0, 0, 0, p.channels]],
            Self::Pool(_) | Self::Softmax { .. } | Self::Sigmoid { .. } => Vec::new(),
        }
    }

    /// Floating-point operations of a direct computation, for the whole batch.
    pub fn flops(&self) -> u64 {
        match self {
            Self::Conv(p) => 2 * p.multiply_adds(),
            Self::Pool(p) => {
                let outputs = self.dst()[0].elements() as u64;
                outputs * (p.window.kernel[0] * p.window.kernel[1]) as u64
            }
            Self::Softmax { .. } | Self::Sigmoid { .. } => 4 * self.src().elements() as u64,
        }
    }

    /// Images.
    pub fn batch(&self) -> usize {
        self.src().n
    }

    /// The same problem for another number of images.
    pub fn with_batch(&self, n: usize) -> Self {
        let mut problem = self.clone();
        match &mut problem {
            Self::Conv(p) => p.batch = n,
            Self::Pool(p) => p.batch = n,
            Self::Softmax { batch, .. } | Self::Sigmoid { batch, .. } => *batch = n,
        }
        problem
    }
}
