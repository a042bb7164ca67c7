//! Files of weights, checked: every tensor that a network needs is there, has its shape and type,
//! and holds values that a network can have. Common to all containers and naming schemes.

use std::path::{Path, PathBuf};

use kernels::{BatchNorm, Filter};

use crate::network::models::MAX_CHANNELS;
use crate::network::{ConvSpec, Spec};
use crate::util::files::coordinate;
use crate::util::read_at::Section;
use crate::weights::NAMING_SCHEMES;
use crate::weights::container_file::ContainerFile;
use crate::weights::error::WeightsError;
use crate::weights::head::{DenseNames, HeadChain, HeadOptions, HeadParts};
use crate::weights::keras_config;
use crate::weights::names::{ConvTensors, Name, NormTensors};
use crate::weights::naming::{self, Axes, LayerNames, Naming};
use crate::weights::tensor_file::{Container, Elements, Opened, TensorFile, TensorInfo, Tensors};

#[derive(Debug)]
pub(super) struct CheckedFile {
    /// The file, for messages.
    name: String,
    container: &'static Container,
    file: Box<dyn TensorFile>,
    /// All files that have tensors of it.
    pub sections: Vec<Section>,
    /// The paths of those that an index names.
    pub files: Vec<PathBuf>,
    tensors: Tensors,
    pub naming: &'static Naming,
    layers: Box<dyn LayerNames>,
    pub head: HeadChain,
    /// What to know of a variant of the network that the number of classes points to.
    pub variant: Option<&'static str>,
    /// What a user should know of the file.
    pub note: Option<String>,
    /// Channels of an image, by the first convolution of a whole network.
    pub channels: usize,
    /// Height and width of an image, where the file states them.
    pub size: Option<[usize; 2]>,
    bn_epsilon: f32,
}

/// A tensor that is there, with the right shape and type, under the name that messages show.
struct Tensor<'a> {
    shown: String,
    in_file: String,
    info: &'a TensorInfo,
}

impl CheckedFile {
    /// Opens a file by its container, reads its names by their scheme, and checks presence, shape
    /// and type of all that a spec needs.
    pub fn open(path: &Path, spec: &Spec, options: &HeadOptions) -> Result<Self, WeightsError> {
        let ContainerFile { name, section, container, usual_naming, opened } = ContainerFile::open(path)?;
        let Opened { tensors, file, model_config, others } = opened;
        let naming = NAMING_SCHEMES.into_iter().find(|naming| (naming.recognises)(&tensors));
        let naming = naming.unwrap_or(usual_naming);
        let names = naming::File {
            name: &name,
            tensors: &tensors,
            model_config: model_config.as_ref(),
            info: &spec.info,
            convs: &spec.convs,
        };
        let layers = (naming.read)(&names)?;
        let parts = if spec.features > 0 { layers.head(&names) } else { HeadParts::default() };
        let variants = spec.info.top.map_or(&[][..], |top| top.variants);
        let is_of = |count: usize| parts.parts.iter().rev().find_map(|part| part.outputs()) == Some(count);
        let variant = variants.iter().find(|(count, _)| is_of(*count)).map(|(_, text)| *text);
        let mut checked = Self {
            container,
            file,
            files: others.iter().map(|(path, _)| path.clone()).collect(),
            sections: std::iter::once(section)
                .chain(others.into_iter().map(|(_, section)| section))
                .collect(),
            naming,
            head: HeadChain::default(),
            variant,
            note: None,
            channels: spec.info.input[2],
            size: model_config.as_ref().and_then(keras_config::input_size),
            bn_epsilon: spec.info.bn_epsilon,
            layers,
            tensors,
            name,
        };
        let mut convs = &spec.convs[..];
        if let ([first, rest @ ..], true) = (convs, spec.features > 0) {
            checked.channels = checked.image_channels(first)?;
            checked.conv_tensors(&ConvSpec { channels: checked.channels, ..first.clone() })?;
            convs = rest;
        }
        for conv in convs {
            checked.conv_tensors(conv)?;
        }
        checked.note = parts.note.clone();
        if let Some(changed) = &parts.changed {
            let (file, found) = (checked.name, changed.clone());
            let expected = format!("the layers of {} on preprocessed images", spec.info.title);
            return Err(WeightsError::Content { file, found, expected });
        }
        checked.head = match options.features_only {
            true => HeadChain { is_max_pooled: parts.is_max_pooled, ..HeadChain::default() },
            false => checked.read_head(parts, spec.features, options)?,
        };
        Ok(checked)
    }

    /// The input channels of a network's first convolution: those of the file, if images can have
    /// as many.
    fn image_channels(&self, first: &ConvSpec) -> Result<usize, WeightsError> {
        let kernel = self.layers.conv(first).kernel.in_file.and_then(|name| self.tensors.get(&name));
        let channels = kernel.and_then(|kernel| match (self.naming.axes, &kernel.shape[..]) {
            (Axes::OutputLast, [_, _, channels, _]) | (Axes::OutputFirst, [_, channels, ..]) => {
                Some(*channels)
            }
            _ => None,
        });
        match channels {
            Some(found) if !(1..=MAX_CHANNELS).contains(&found) => Err(WeightsError::Content {
                file: self.name.clone(),
                found: format!("images of {found} channels"),
                expected: format!("1 to {MAX_CHANNELS}"),
            }),
            channels => Ok(channels.unwrap_or(first.channels)),
        }
    }

    /// The head, each tensor of which is checked.
    fn read_head(
        &self,
        parts: HeadParts,
        features: usize,
        options: &HeadOptions,
    ) -> Result<HeadChain, WeightsError> {
        let chain = HeadChain::of(parts, features, options.activation);
        let chain = chain.map_err(|found| WeightsError::Head { file: self.name.clone(), found })?;
        chain.dense.iter().try_for_each(|dense| self.dense_tensors(dense).map(drop))?;
        Ok(chain)
    }

    /// One convolution, kernel as HWIO.
    pub fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError> {
        let tensors = self.conv_tensors(spec)?;
        let norms = tensors.norms.iter().map(|norm| self.batch_norm(norm, spec.filters));
        let norms = norms.collect::<Result<Vec<BatchNorm>, _>>()?;
        let [r, s] = spec.kernel;
        let dims = [r, s, spec.channels, spec.filters];
        let (weights, largest) = self.hwio(&tensors.kernel, dims)?;
        let bias = tensors.bias.map(|bias| self.vector(&bias)).transpose()?;
        let filter = Filter { bias, norms, ..Filter::new(dims, weights) };
        match filter.overflow(largest) {
            None => Ok(filter),
            Some(channel) => {
                let gamma = tensors.norms.iter().rev().find_map(|norm| norm.gamma.as_ref());
                Err(self.overflow(gamma, &tensors.kernel, channel))
            }
        }
    }

    fn overflow(&self, gamma: Option<&Tensor>, kernel: &Tensor, channel: usize) -> WeightsError {
        let tensor = gamma.unwrap_or(kernel).shown.clone();
        WeightsError::Overflow { file: self.name.clone(), tensor, channel }
    }

    /// The first BatchNorm of a convolution.
    pub fn norm(&self, spec: &ConvSpec) -> Result<BatchNorm, WeightsError> {
        self.batch_norm(&self.conv_tensors(spec)?.norms[0], spec.filters)
    }

    /// A dense layer of the head as a 1x1 convolution, with the BatchNorms that are folded into it.
    pub fn dense(&self, layer: usize) -> Result<Filter, WeightsError> {
        let names = &self.head.dense[layer];
        let (kernel, bias) = self.dense_tensors(names)?;
        let dims = [1, 1, names.inputs, names.outputs];
        let (mut weights, mut largest) = self.hwio(&kernel, dims)?;
        let mut bias = match bias {
            Some(bias) => self.vector(&bias)?,
            None => vec![0.0; names.outputs],
        };
        let norms = |list: &[NormTensors<Name>], size: usize| {
            let norm = |names| self.batch_norm(&self.norm_tensors(names, &names_of(names), size)?, size);
            list.iter().map(norm).collect::<Result<Vec<BatchNorm>, _>>()
        };
        let before = Filter { norms: norms(&names.before, names.inputs)?, ..Filter::dims_only([1, 1, 1, 1]) };
        if !before.norms.is_empty() {
            fold_before(&before, &mut weights, &mut bias);
            largest = largest_magnitude(&weights);
        }
        let norms = norms(&names.after, names.outputs)?;
        let filter = Filter { bias: Some(bias), norms, ..Filter::new(dims, weights) };
        match filter.overflow(largest) {
            None => Ok(filter),
            Some(channel) => Err(self.overflow(None, &kernel, channel)),
        }
    }

    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors<Tensor<'_>>, WeightsError> {
        let ([r, s], c, k) = (spec.kernel, spec.channels, spec.filters);
        let shape = match self.naming.axes {
            Axes::OutputLast => [r, s, c, k],
            Axes::OutputFirst => [k, c, r, s],
        };
        let names = self.layers.conv(spec);
        let is_there =
            |name: &Name| name.in_file.as_ref().is_some_and(|name| self.tensors.contains_key(name));
        let bias = names.bias.filter(is_there);
        Ok(ConvTensors {
            kernel: self.tensor(&names.kernel, &spec.name, &shape)?,
            bias: bias.map(|bias| self.tensor(&bias, &spec.name, &[k])).transpose()?,
            norms: names
                .norms
                .iter()
                .map(|norm| self.norm_tensors(norm, &spec.name, k))
                .collect::<Result<_, _>>()?,
        })
    }

    fn norm_tensors(
        &self,
        names: &NormTensors<Name>,
        layer: &str,
        size: usize,
    ) -> Result<NormTensors<Tensor<'_>>, WeightsError> {
        let one = |name: &Name| self.tensor(name, layer, &[size]);
        Ok(NormTensors {
            gamma: names.gamma.as_ref().map(one).transpose()?,
            beta: names.beta.as_ref().map(one).transpose()?,
            mean: one(&names.mean)?,
            variance: one(&names.variance)?,
            epsilon: names.epsilon,
        })
    }

    /// Kernel and bias of a dense layer.
    fn dense_tensors(&self, names: &DenseNames) -> Result<(Tensor<'_>, Option<Tensor<'_>>), WeightsError> {
        let DenseNames { layer, kernel, bias, inputs, outputs, before, after, .. } = names;
        let shape = match self.naming.axes {
            Axes::OutputLast => [*inputs, *outputs],
            Axes::OutputFirst => [*outputs, *inputs],
        };
        for (norms, size) in [(before, *inputs), (after, *outputs)] {
            norms.iter().try_for_each(|norm| self.norm_tensors(norm, &names_of(norm), size).map(drop))?;
        }
        let bias = bias.as_ref().map(|bias| self.tensor(bias, layer, &[*outputs])).transpose()?;
        Ok((self.tensor(kernel, layer, &shape)?, bias))
    }

    /// A tensor that must be there, of a type that is read, with this shape.
    fn tensor(
        &self,
        Name { shown, in_file }: &Name,
        layer: &str,
        shape: &[usize],
    ) -> Result<Tensor<'_>, WeightsError> {
        let (file, tensor, layer) = (self.name.clone(), shown.clone(), layer.to_owned());
        let expected = format!("{shape:?}");
        let Some((info, in_file)) = in_file.as_ref().and_then(|name| Some((self.tensors.get(name)?, name)))
        else {
            return Err(WeightsError::Missing { file, tensor, layer, expected });
        };
        match &info.elements {
            Elements::Other(found) => Err(WeightsError::Type { file, tensor, found: found.to_string() }),
            _ if info.shape != shape => {
                let found = info.shape.clone();
                Err(WeightsError::Shape { file, tensor, layer, found, expected })
            }
            _ => Ok(Tensor { shown: tensor, in_file: in_file.clone(), info }),
        }
    }

    fn batch_norm(&self, tensors: &NormTensors<Tensor>, size: usize) -> Result<BatchNorm, WeightsError> {
        let NormTensors { gamma, beta, mean, variance, epsilon } = tensors;
        let epsilon = epsilon.unwrap_or(self.bn_epsilon);
        let beta = beta.as_ref().map(|beta| self.vector(beta)).transpose()?;
        let gamma = gamma.as_ref().map(|gamma| self.vector(gamma)).transpose()?;
        let mean = self.vector(mean)?;
        let values = self.read(variance)?;
        let accept = |v: f32| v.is_finite() && v >= 0.0;
        if !values.iter().all(|value| accept(*value)) {
            return Err(self.wrong(variance, &values, accept, "a finite number not below 0"));
        }
        let beta = beta.unwrap_or_else(|| vec![0.0; size]);
        Ok(BatchNorm { gamma, beta, mean, variance: values, epsilon })
    }

    /// The values of a kernel as HWIO, of which `dims` are the sizes, and the largest magnitude.
    fn hwio(&self, kernel: &Tensor, dims: [usize; 4]) -> Result<(Vec<f32>, f32), WeightsError> {
        let (values, largest) = self.finite(kernel)?;
        let values = match self.naming.axes {
            Axes::OutputLast => values,
            Axes::OutputFirst => hwio_from_oihw(&values, dims),
        };
        Ok((values, largest))
    }

    /// The values of a tensor, all finite.
    fn vector(&self, tensor: &Tensor) -> Result<Vec<f32>, WeightsError> {
        Ok(self.finite(tensor)?.0)
    }

    /// The values of a tensor, all finite, and the largest magnitude.
    fn finite(&self, tensor: &Tensor) -> Result<(Vec<f32>, f32), WeightsError> {
        let values = self.read(tensor)?;
        let largest = largest_magnitude(&values);
        match largest.is_finite() {
            true => Ok((values, largest)),
            false => Err(self.wrong(tensor, &values, f32::is_finite, "a finite number")),
        }
    }

    fn read(&self, Tensor { shown, in_file, info }: &Tensor) -> Result<Vec<f32>, WeightsError> {
        self.file.read_f32(in_file, info).map_err(|error| {
            let error = error.at(format!("tensor {shown}"));
            WeightsError::of(error, &self.name, self.container.name)
        })
    }

    /// The error of the first value that is not accepted.
    fn wrong(
        &self,
        Tensor { shown, info, .. }: &Tensor,
        values: &[f32],
        accept: impl Fn(f32) -> bool,
        expected: &'static str,
    ) -> WeightsError {
        let flat = values.iter().position(|value| !accept(*value)).unwrap_or_default();
        WeightsError::Value {
            file: self.name.clone(),
            tensor: shown.clone(),
            at: coordinate(flat, &info.shape),
            found: values[flat],
            expected,
        }
    }
}

/// The largest magnitude of values; infinite or NaN where one is. Magnitudes are ordered as their
/// bits.
fn largest_magnitude(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.abs().to_bits())))
}

/// What messages call the layer of a BatchNorm: its mean's tensor says it.
fn names_of(norm: &NormTensors<Name>) -> String {
    let shown = norm.mean.shown.as_str();
    shown.rsplit_once(['.', '/']).map_or(shown, |(layer, _)| layer).to_owned()
}

/// Folds BatchNorms of the inputs into weights `[in, out]` and bias: a weight takes the scale of
/// its input, and the bias the sum of the shifts by their weights.
fn fold_before(norms: &Filter, weights: &mut [f32], bias: &mut [f32]) {
    let mut sums: Vec<f64> = bias.iter().map(|&bias| bias.into()).collect();
    for (input, row) in weights.chunks_exact_mut(bias.len()).enumerate() {
        let (scale, shift) = norms.scale_shift(input);
        for (weight, sum) in row.iter_mut().zip(&mut sums) {
            *sum += shift * *weight as f64;
            *weight = (scale * *weight as f64) as f32;
        }
    }
    bias.iter_mut().zip(sums).for_each(|(bias, sum)| *bias = sum as f32);
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
