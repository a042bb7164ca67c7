//! What Keras and torchvision files have in common: six tensors a convolution, two of the dense
//! layer, all of them float32.

use kernels::filter::{BatchNorm, Filter};

use crate::network::spec::{ConvSpec, EPSILON, Spec};
use crate::weights::error::WeightsError;

/// A tensor as the header states it.
#[derive(Debug)]
pub(super) struct Tensor<H> {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// `None` is f32; otherwise the type's name.
    pub other_type: Option<String>,
    /// Where its values are.
    pub handle: H,
}

/// A tensor that must be there: itself, or the name under which it was looked for.
pub(super) type Required<H> = Result<Tensor<H>, String>;

/// The tensors of a convolution and its BatchNorm.
#[derive(Debug)]
pub(super) struct ConvTensors<H> {
    pub kernel: Required<H>,
    pub bias: Option<Tensor<H>>,
    /// `None` where the format or the layer has no scale.
    pub gamma: Option<Required<H>>,
    pub beta: Required<H>,
    pub mean: Required<H>,
    pub variance: Required<H>,
}

/// The tensors of the dense layer.
#[derive(Debug)]
pub(super) struct DenseTensors<H> {
    pub kernel: Required<H>,
    pub bias: Required<H>,
}

/// In which order a file has the axes of its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    /// Convolution HWIO, dense layer \[in, out\].
    Keras,
    /// Convolution OIHW, dense layer \[out, in\].
    Torch,
}

/// An open file whose header has been read.
pub(super) trait Checkpoint {
    /// Finds a tensor's values.
    type Handle;
    /// Order of axes of all kernels.
    const AXES: Axes;

    /// The file, for messages.
    fn file(&self) -> &str;
    /// The tensors of one convolution. Reads no values.
    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors<Self::Handle>, WeightsError>;
    /// The tensors of the dense layer; `None` if there is not one of them. Reads no values.
    fn dense_tensors(&self) -> Result<Option<DenseTensors<Self::Handle>>, WeightsError>;
    /// The values of a float32 tensor.
    fn read(&self, tensor: &Tensor<Self::Handle>) -> Result<Vec<f32>, WeightsError>;
}

/// Checks every tensor of `spec` and returns the classes of the dense layer.
pub(super) fn check<C: Checkpoint>(file: &C, spec: &Spec) -> Result<Option<usize>, WeightsError> {
    for conv in &spec.convs {
        checked_conv(file, conv)?;
    }
    if spec.features == 0 {
        return Ok(None);
    }
    Ok(checked_dense(file, spec.features)?.map(|(.., classes)| classes))
}

/// Reads one convolution, kernel as HWIO.
pub(super) fn conv<C: Checkpoint>(file: &C, spec: &ConvSpec) -> Result<Filter, WeightsError> {
    let tensors = checked_conv(file, spec)?;
    let norm = read_norm(file, &tensors)?;
    let CheckedConv { kernel, bias, .. } = tensors;
    let [r, s] = spec.kernel;
    let dims = [r, s, spec.channels, spec.filters];
    let weights = finite(file, &kernel)?;
    let weights = match C::AXES {
        Axes::Keras => weights,
        Axes::Torch => hwio_from_oihw(&weights, dims),
    };
    let bias = bias.map(|bias| finite(file, &bias)).transpose()?;
    Ok(Filter { bias, norms: vec![norm], ..Filter::new(dims, weights) })
}

/// Reads the BatchNorm of one convolution.
pub(super) fn norm<C: Checkpoint>(file: &C, spec: &ConvSpec) -> Result<BatchNorm, WeightsError> {
    read_norm(file, &checked_conv(file, spec)?)
}

fn read_norm<C: Checkpoint>(file: &C, tensors: &CheckedConv<C::Handle>) -> Result<BatchNorm, WeightsError> {
    let CheckedConv { gamma, beta, mean, variance, .. } = tensors;
    Ok(BatchNorm {
        gamma: gamma.as_ref().map(|gamma| finite(file, gamma)).transpose()?,
        beta: finite(file, beta)?,
        mean: finite(file, mean)?,
        variance: valid(file, variance, |v| v.is_finite() && v >= 0.0, "a finite number not below 0")?,
        epsilon: EPSILON,
    })
}

/// Reads the dense layer, if there is one, as a 1x1 convolution.
pub(super) fn dense<C: Checkpoint>(file: &C, features: usize) -> Result<Option<Filter>, WeightsError> {
    let Some((kernel, bias, classes)) = checked_dense(file, features)? else { return Ok(None) };
    let dims = [1, 1, features, classes];
    let weights = finite(file, &kernel)?;
    let weights = match C::AXES {
        Axes::Keras => weights,
        Axes::Torch => hwio_from_oihw(&weights, dims),
    };
    Ok(Some(Filter { bias: Some(finite(file, &bias)?), ..Filter::new(dims, weights) }))
}

/// As [`ConvTensors`], all there, with the right shapes and type.
struct CheckedConv<H> {
    kernel: Tensor<H>,
    bias: Option<Tensor<H>>,
    gamma: Option<Tensor<H>>,
    beta: Tensor<H>,
    mean: Tensor<H>,
    variance: Tensor<H>,
}

fn checked_conv<C: Checkpoint>(file: &C, spec: &ConvSpec) -> Result<CheckedConv<C::Handle>, WeightsError> {
    let ([r, s], c, k) = (spec.kernel, spec.channels, spec.filters);
    let shape = match C::AXES {
        Axes::Keras => [r, s, c, k],
        Axes::Torch => [k, c, r, s],
    };
    let tensors = file.conv_tensors(spec)?;
    let required = |tensor, shape: &[usize]| {
        checked(file, tensor, &spec.name, &format!("{shape:?}"), |found| found == shape)
    };
    let optional = |tensor: Option<_>| tensor.map(|tensor| required(Ok(tensor), &[k])).transpose();
    Ok(CheckedConv {
        kernel: required(tensors.kernel, &shape)?,
        bias: optional(tensors.bias)?,
        gamma: tensors.gamma.map(|gamma| required(gamma, &[k])).transpose()?,
        beta: required(tensors.beta, &[k])?,
        mean: required(tensors.mean, &[k])?,
        variance: required(tensors.variance, &[k])?,
    })
}

type CheckedDense<H> = (Tensor<H>, Tensor<H>, usize);

fn checked_dense<C: Checkpoint>(
    file: &C,
    features: usize,
) -> Result<Option<CheckedDense<C::Handle>>, WeightsError> {
    let Some(tensors) = file.dense_tensors()? else { return Ok(None) };
    let (inputs, outputs, expected) = match C::AXES {
        Axes::Keras => (0, 1, format!("[{features}, classes]")),
        Axes::Torch => (1, 0, format!("[classes, {features}]")),
    };
    let layer = "the dense layer";
    let kernel = checked(file, tensors.kernel, layer, &expected, |found| {
        found.len() == 2 && found[inputs] == features && found[outputs] > 0
    })?;
    let classes = kernel.shape[outputs];
    let bias = checked(file, tensors.bias, layer, &format!("[{classes}]"), |found| found == [classes])?;
    Ok(Some((kernel, bias, classes)))
}

fn checked<C: Checkpoint>(
    file: &C,
    tensor: Required<C::Handle>,
    layer: &str,
    expected: &str,
    fits: impl Fn(&[usize]) -> bool,
) -> Result<Tensor<C::Handle>, WeightsError> {
    let (file, layer, expected) = (file.file().to_owned(), layer.to_owned(), expected.to_owned());
    match tensor {
        Err(tensor) => Err(WeightsError::Missing { file, tensor, layer, expected }),
        Ok(Tensor { name, other_type: Some(found), .. }) => {
            Err(WeightsError::Type { file, tensor: name, found })
        }
        Ok(Tensor { name, shape, .. }) if !fits(&shape) => {
            Err(WeightsError::Shape { file, tensor: name, layer, found: shape, expected })
        }
        Ok(tensor) => Ok(tensor),
    }
}

fn finite<C: Checkpoint>(file: &C, tensor: &Tensor<C::Handle>) -> Result<Vec<f32>, WeightsError> {
    valid(file, tensor, f32::is_finite, "a finite number")
}

fn valid<C: Checkpoint>(
    file: &C,
    tensor: &Tensor<C::Handle>,
    accept: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<Vec<f32>, WeightsError> {
    let values = file.read(tensor)?;
    // All at once, as vectors do it, and one by one where that fails.
    let are_valid = values.iter().fold(true, |all, value| all & accept(*value));
    let wrong = if are_valid { None } else { values.iter().position(|value| !accept(*value)) };
    match wrong {
        None => Ok(values),
        Some(flat) => Err(WeightsError::Value {
            file: file.file().to_owned(),
            tensor: tensor.name.clone(),
            at: crate::util::files::coordinate(flat, &tensor.shape),
            found: values[flat],
            expected,
        }),
    }
}

/// Reorders `[k, c, r, s]` to `[r, s, c, k]`; `dims` are those of the result.
fn hwio_from_oihw(values: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let [r, s, c, k] = dims;
    let mut hwio = Vec::with_capacity(values.len());
    for tap in 0..r * s {
        for channel in 0..c {
            hwio.extend((0..k).map(|filter| values[(filter * c + channel) * r * s + tap]));
        }
    }
    hwio
}
