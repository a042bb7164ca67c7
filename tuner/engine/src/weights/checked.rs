//! Files of weights, checked: every tensor that a network needs is there, has its shape and type, and holds values that
//! a network can have. Common to all containers and naming schemes.

use kernels::filter::{BatchNorm, Filter};

use crate::network::model::ModelInfo;
use crate::network::spec::{ConvSpec, Spec};
use crate::weights::error::WeightsError;
use crate::weights::naming::{AveragePooling, Axes, DenseNames, LayerNames, Name};
use crate::weights::store::Store;
use crate::weights::tensor_file::{ReadError, TensorFile, TensorInfo};

/// A container and the names of its tensors.
#[derive(Debug)]
pub(super) struct CheckedFile {
    file: Box<dyn TensorFile>,
    names: Box<dyn LayerNames>,
    bn_epsilon: f32,
}

/// A tensor of a file, under the name that messages show.
struct Tensor {
    shown: String,
    info: TensorInfo,
}

/// The tensors of a convolution and its BatchNorm, all there, with the right shapes and type.
struct ConvTensors {
    kernel: Tensor,
    bias: Option<Tensor>,
    gamma: Option<Tensor>,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
}

/// The tensors of the dense layer, and its outputs.
struct DenseTensors {
    kernel: Tensor,
    bias: Tensor,
    classes: usize,
}

impl Store for CheckedFile {
    fn average_pooling(&self) -> AveragePooling {
        self.names.average_pooling()
    }

    fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError> {
        let tensors = self.conv_tensors(spec)?;
        let norm = self.batch_norm(&tensors)?;
        let [r, s] = spec.kernel;
        let dims = [r, s, spec.channels, spec.filters];
        let weights = self.hwio(&tensors.kernel, dims)?;
        let bias = tensors.bias.map(|bias| self.finite(&bias)).transpose()?;
        Ok(Filter { bias, norms: vec![norm], ..Filter::new(dims, weights) })
    }

    fn norm(&self, spec: &ConvSpec) -> Result<BatchNorm, WeightsError> {
        self.batch_norm(&self.conv_tensors(spec)?)
    }

    fn dense(&self, features: usize) -> Result<Option<Filter>, WeightsError> {
        let Some(DenseTensors { kernel, bias, classes }) = self.dense_tensors(features)? else {
            return Ok(None);
        };
        let dims = [1, 1, features, classes];
        let weights = self.hwio(&kernel, dims)?;
        Ok(Some(Filter { bias: Some(self.finite(&bias)?), ..Filter::new(dims, weights) }))
    }
}

impl CheckedFile {
    /// Nothing is checked yet.
    pub fn new(file: Box<dyn TensorFile>, names: Box<dyn LayerNames>, info: &ModelInfo) -> Self {
        Self { file, names, bn_epsilon: info.bn_epsilon }
    }

    /// Checks presence, shape and type of all that a spec needs, and gives the classes of the dense layer.
    pub fn check(&self, spec: &Spec) -> Result<Option<usize>, WeightsError> {
        for conv in &spec.convs {
            self.conv_tensors(conv)?;
        }
        if spec.features == 0 {
            return Ok(None);
        }
        Ok(self.dense_tensors(spec.features)?.map(|dense| dense.classes))
    }

    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors, WeightsError> {
        let ([r, s], c, k) = (spec.kernel, spec.channels, spec.filters);
        let shape = match self.names.axes() {
            Axes::OutputLast => [r, s, c, k],
            Axes::OutputFirst => [k, c, r, s],
        };
        let names = self.names.conv(spec);
        let of_shape = |name, shape: &[usize]| {
            self.tensor(name, &spec.name, &format!("{shape:?}"), |found| found == shape)
        };
        let has_bias = names.bias.in_file.as_ref().is_some_and(|name| self.file.find(name).is_some());
        Ok(ConvTensors {
            kernel: of_shape(names.kernel, &shape)?,
            bias: has_bias.then(|| of_shape(names.bias, &[k])).transpose()?,
            gamma: names.gamma.map(|gamma| of_shape(gamma, &[k])).transpose()?,
            beta: of_shape(names.beta, &[k])?,
            mean: of_shape(names.mean, &[k])?,
            variance: of_shape(names.variance, &[k])?,
        })
    }

    fn dense_tensors(&self, features: usize) -> Result<Option<DenseTensors>, WeightsError> {
        let Some(DenseNames { kernel, bias }) = self.names.dense(&*self.file)? else { return Ok(None) };
        let (inputs, outputs, expected) = match self.names.axes() {
            Axes::OutputLast => (0, 1, format!("[{features}, classes]")),
            Axes::OutputFirst => (1, 0, format!("[classes, {features}]")),
        };
        let layer = "the dense layer";
        let kernel = self.tensor(kernel, layer, &expected, |found| {
            found.len() == 2 && found[inputs] == features && found[outputs] > 0
        })?;
        let classes = kernel.info.shape[outputs];
        let bias = self.tensor(bias, layer, &format!("[{classes}]"), |found| found == [classes])?;
        Ok(Some(DenseTensors { kernel, bias, classes }))
    }

    /// A tensor that must be there, of f32, with a shape that fits.
    fn tensor(
        &self,
        name: Name,
        layer: &str,
        expected: &str,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<Tensor, WeightsError> {
        let Name { shown, in_file } = name;
        let file = self.file.file().to_owned();
        let (layer, expected) = (layer.to_owned(), expected.to_owned());
        match in_file.and_then(|name| self.file.find(&name)) {
            None => Err(WeightsError::Missing { file, tensor: shown, layer, expected }),
            Some(TensorInfo { other_type: Some(found), .. }) => {
                Err(WeightsError::Type { file, tensor: shown, found })
            }
            Some(TensorInfo { shape, .. }) if !fits(&shape) => {
                Err(WeightsError::Shape { file, tensor: shown, layer, found: shape, expected })
            }
            Some(info) => Ok(Tensor { shown, info }),
        }
    }

    fn batch_norm(&self, tensors: &ConvTensors) -> Result<BatchNorm, WeightsError> {
        let ConvTensors { gamma, beta, mean, variance, .. } = tensors;
        Ok(BatchNorm {
            gamma: gamma.as_ref().map(|gamma| self.finite(gamma)).transpose()?,
            beta: self.finite(beta)?,
            mean: self.finite(mean)?,
            variance: self.valid(variance, |v| v.is_finite() && v >= 0.0, "a finite number not below 0")?,
            epsilon: self.bn_epsilon,
        })
    }

    /// The values of a kernel as HWIO, of which `dims` are the sizes.
    fn hwio(&self, kernel: &Tensor, dims: [usize; 4]) -> Result<Vec<f32>, WeightsError> {
        let values = self.finite(kernel)?;
        Ok(match self.names.axes() {
            Axes::OutputLast => values,
            Axes::OutputFirst => hwio_from_oihw(&values, dims),
        })
    }

    fn finite(&self, tensor: &Tensor) -> Result<Vec<f32>, WeightsError> {
        self.valid(tensor, f32::is_finite, "a finite number")
    }

    fn valid(
        &self,
        tensor: &Tensor,
        accept: impl Fn(f32) -> bool,
        expected: &'static str,
    ) -> Result<Vec<f32>, WeightsError> {
        let values = self.read(tensor)?;
        // All at once, as vectors do it, and one by one where that fails.
        let are_valid = values.iter().fold(true, |all, value| all & accept(*value));
        let wrong = if are_valid { None } else { values.iter().position(|value| !accept(*value)) };
        match wrong {
            None => Ok(values),
            Some(flat) => Err(WeightsError::Value {
                file: self.file.file().to_owned(),
                tensor: tensor.shown.clone(),
                at: crate::util::files::coordinate(flat, &tensor.info.shape),
                found: values[flat],
                expected,
            }),
        }
    }

    fn read(&self, tensor: &Tensor) -> Result<Vec<f32>, WeightsError> {
        let file = self.file.file();
        self.file.read_f32(&tensor.info).map_err(|error| match error {
            ReadError::Io(source) => WeightsError::Read { file: file.to_owned(), source },
            ReadError::Damaged(reason) => {
                let reason = format!("tensor {}: {reason}", tensor.shown);
                WeightsError::damaged(file, self.file.format(), reason)
            }
        })
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
