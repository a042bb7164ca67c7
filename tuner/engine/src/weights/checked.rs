//! Files of weights, checked: every tensor that a network needs is there, has its shape and type,
//! and holds values that a network can have. Common to all containers and naming schemes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kernels::{BatchNorm, Filter};

use crate::network::{ConvSpec, ModelInfo, Spec};
use crate::util::files::{coordinate, file_name};
use crate::weights::error::WeightsError;
use crate::weights::naming::{Axes, ConvTensors, DenseTensors, LayerNames, Name, Naming};
use crate::weights::tensor_file::{Container, MAGIC, ReadError, TensorFile, TensorInfo, Tensors};
use crate::weights::{CONTAINERS, NAMING_SCHEMES};

#[derive(Debug)]
pub(super) struct CheckedFile {
    /// The file, for messages.
    name: String,
    container: &'static Container,
    file: Box<dyn TensorFile>,
    tensors: Tensors,
    pub naming: &'static Naming,
    layers: Box<dyn LayerNames>,
    bn_epsilon: f32,
}

/// A tensor that is there, with the right shape and type, under the name that messages show.
struct Tensor<'a> {
    shown: String,
    in_file: String,
    info: &'a TensorInfo,
}

impl CheckedFile {
    /// Opens a file by its container, and reads its names by their scheme, without checks.
    pub fn open(path: &Path, info: &ModelInfo) -> Result<Self, WeightsError> {
        let name = file_name(path);
        let read = |source| WeightsError::Read { file: name.clone(), source };
        let file = File::open(path).map_err(read)?;
        let mut magic = Vec::new();
        (&file).take(MAGIC).read_to_end(&mut magic).map_err(read)?;
        let known = CONTAINERS.iter().find(|(container, _)| (container.recognises)(&magic));
        let (container, usual_naming) = known.ok_or_else(|| WeightsError::Content {
            file: name.clone(),
            found: content(&magic),
            expected: CONTAINERS.map(|(container, _)| container.title).join(" or "),
        })?;
        let opened = (container.open)(file);
        let (tensors, file) = opened.map_err(|error| WeightsError::of(error, &name, container.name))?;
        let naming = NAMING_SCHEMES.into_iter().find(|naming| (naming.recognises)(&tensors));
        let naming = naming.unwrap_or(usual_naming);
        let layers = (naming.read)(&name, &tensors, info)?;
        Ok(Self { name, container, file, tensors, naming, layers, bn_epsilon: info.bn_epsilon })
    }

    /// Checks presence, shape and type of all that a spec needs, and gives the number of classes.
    pub fn check(&self, spec: &Spec) -> Result<Option<usize>, WeightsError> {
        for conv in &spec.convs {
            self.conv_tensors(conv)?;
        }
        if spec.features == 0 {
            return Ok(None);
        }
        Ok(self.dense_tensors(spec.features)?.map(|dense| dense.bias.info.shape[0]))
    }

    /// One convolution, kernel as HWIO.
    pub fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError> {
        let tensors = self.conv_tensors(spec)?;
        let norm = self.batch_norm(&tensors)?;
        let [r, s] = spec.kernel;
        let dims = [r, s, spec.channels, spec.filters];
        let weights = self.hwio(&tensors.kernel, dims)?;
        let bias = tensors.bias.map(|bias| self.finite(&bias)).transpose()?;
        Ok(Filter { bias, norms: vec![norm], ..Filter::new(dims, weights) })
    }

    pub fn norm(&self, spec: &ConvSpec) -> Result<BatchNorm, WeightsError> {
        self.batch_norm(&self.conv_tensors(spec)?)
    }

    /// The dense layer, if there is one, as a 1x1 convolution.
    pub fn dense(&self, features: usize) -> Result<Option<Filter>, WeightsError> {
        let Some(DenseTensors { kernel, bias }) = self.dense_tensors(features)? else { return Ok(None) };
        let dims = [1, 1, features, bias.info.shape[0]];
        let weights = self.hwio(&kernel, dims)?;
        Ok(Some(Filter { bias: Some(self.finite(&bias)?), ..Filter::new(dims, weights) }))
    }

    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors<Tensor<'_>>, WeightsError> {
        let ([r, s], c, k) = (spec.kernel, spec.channels, spec.filters);
        let shape = match self.naming.axes {
            Axes::OutputLast => [r, s, c, k],
            Axes::OutputFirst => [k, c, r, s],
        };
        let names = self.layers.conv(spec);
        let of_shape = |name, shape: &[usize]| {
            self.tensor(name, &spec.name, &format!("{shape:?}"), |found| found == shape)
        };
        let is_there =
            |name: &Name| name.in_file.as_ref().is_some_and(|name| self.tensors.contains_key(name));
        Ok(ConvTensors {
            kernel: of_shape(names.kernel, &shape)?,
            bias: names.bias.filter(is_there).map(|bias| of_shape(bias, &[k])).transpose()?,
            gamma: names.gamma.map(|gamma| of_shape(gamma, &[k])).transpose()?,
            beta: of_shape(names.beta, &[k])?,
            mean: of_shape(names.mean, &[k])?,
            variance: of_shape(names.variance, &[k])?,
        })
    }

    /// The tensors of the dense layer; the bias is as long as there are classes.
    fn dense_tensors(&self, features: usize) -> Result<Option<DenseTensors<Tensor<'_>>>, WeightsError> {
        let Some(names) = self.layers.dense(&self.tensors)? else { return Ok(None) };
        let (inputs, outputs, expected) = match self.naming.axes {
            Axes::OutputLast => (0, 1, format!("[{features}, classes]")),
            Axes::OutputFirst => (1, 0, format!("[classes, {features}]")),
        };
        let layer = "the dense layer";
        let kernel = self.tensor(names.kernel, layer, &expected, |found| {
            found.len() == 2 && found[inputs] == features && found[outputs] > 0
        })?;
        let classes = kernel.info.shape[outputs];
        let bias = self.tensor(names.bias, layer, &format!("[{classes}]"), |found| found == [classes])?;
        Ok(Some(DenseTensors { kernel, bias }))
    }

    /// A tensor that must be there, of f32, with a shape that fits.
    fn tensor(
        &self,
        Name { shown, in_file }: Name,
        layer: &str,
        expected: &str,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<Tensor<'_>, WeightsError> {
        let (file, layer, expected) = (self.name.clone(), layer.to_owned(), expected.to_owned());
        let Some((info, in_file)) = in_file.and_then(|name| Some((self.tensors.get(&name)?, name))) else {
            return Err(WeightsError::Missing { file, tensor: shown, layer, expected });
        };
        match &info.other_type {
            Some(found) => Err(WeightsError::Type { file, tensor: shown, found: found.clone() }),
            None if !fits(&info.shape) => {
                let found = info.shape.clone();
                Err(WeightsError::Shape { file, tensor: shown, layer, found, expected })
            }
            None => Ok(Tensor { shown, in_file, info }),
        }
    }

    fn batch_norm(&self, tensors: &ConvTensors<Tensor>) -> Result<BatchNorm, WeightsError> {
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
        Ok(match self.naming.axes {
            Axes::OutputLast => values,
            Axes::OutputFirst => hwio_from_oihw(&values, dims),
        })
    }

    fn finite(&self, tensor: &Tensor) -> Result<Vec<f32>, WeightsError> {
        self.valid(tensor, f32::is_finite, "a finite number")
    }

    fn valid(
        &self,
        Tensor { shown, in_file, info }: &Tensor,
        accept: impl Fn(f32) -> bool,
        expected: &'static str,
    ) -> Result<Vec<f32>, WeightsError> {
        let values = self.file.read_f32(in_file, info).map_err(|error| {
            let error = match error {
                ReadError::Damaged(reason) => ReadError::Damaged(format!("tensor {shown}: {reason}")),
                error => error,
            };
            WeightsError::of(error, &self.name, self.container.name)
        })?;
        // All at once, as vectors do it, and one by one where that fails.
        let are_valid = values.iter().fold(true, |all, value| all & accept(*value));
        let wrong = if are_valid { None } else { values.iter().position(|value| !accept(*value)) };
        match wrong {
            None => Ok(values),
            Some(flat) => Err(WeightsError::Value {
                file: self.name.clone(),
                tensor: shown.clone(),
                at: coordinate(flat, &info.shape),
                found: values[flat],
                expected,
            }),
        }
    }
}

/// What the first bytes of an unknown file say.
fn content(magic: &[u8]) -> String {
    match magic {
        [] => "an empty file".to_owned(),
        [b'P', b'K', ..] => "a zip archive, as .keras and .pth files are".to_owned(),
        bytes => format!("a file that starts with {bytes:02x?}"),
    }
}

/// Reorders `[k, c, r, s]` to `[r, s, c, k]`; `dims` are those of the result.
fn hwio_from_oihw(values: &[f32], [r, s, c, k]: [usize; 4]) -> Vec<f32> {
    let mut hwio = Vec::with_capacity(values.len());
    for tap in 0..r * s {
        for channel in 0..c {
            hwio.extend((0..k).map(|filter| values[(filter * c + channel) * r * s + tap]));
        }
    }
    hwio
}
