//! Safetensors files with the tensor names of torchvision and timm: `{layer}.conv.weight` (OIHW),
//! `{layer}.bn.weight`, `.bias`, `.running_mean`, `.running_var`, `fc.weight`, `fc.bias`. All other
//! tensors, such as `AuxLogits.*` and `*.num_batches_tracked`, are ignored.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata};

use crate::network::spec::ConvSpec;
use crate::weights::checkpoint::{Axes, Checkpoint, ConvTensors, DenseTensors, Required, Tensor};
use crate::weights::error::{WeightsError, file_name};
use crate::weights::values;

const FORMAT: &str = "safetensors";

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// An open file; tensors are read from it one by one.
#[derive(Debug)]
pub(super) struct Torch {
    name: String,
    metadata: Metadata,
    data_start: u64,
    file: File,
}

impl Torch {
    /// Reads the header and checks that the file's length is what it says.
    pub fn open(path: &Path, mut file: File) -> Result<Self, WeightsError> {
        let name = file_name(path);
        let damaged = |reason: String| WeightsError::damaged(&name, FORMAT, reason);
        let (length, header) = read_header(&mut file)
            .map_err(|source| WeightsError::Read { file: name.clone(), source })?
            .map_err(damaged)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
        let data_start = 8 + header.len() as u64;
        let (found, expected) = (length - data_start, metadata.data_len() as u64);
        if found != expected {
            return Err(damaged(format!("found {found} bytes of values, expected {expected}")));
        }
        Ok(Self { name, metadata, data_start, file })
    }

    fn find(&self, name: String) -> Required<u64> {
        let Some(info) = self.metadata.info(&name) else { return Err(name) };
        Ok(Tensor {
            name,
            shape: info.shape.clone(),
            other_type: (info.dtype != Dtype::F32).then(|| info.dtype.to_string()),
            handle: info.data_offsets.0 as u64,
        })
    }
}

/// The file's length and the bytes of its header, or what is wrong with them.
fn read_header(file: &mut File) -> std::io::Result<Result<(u64, Vec<u8>), String>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    let limit = MAX_HEADER.min(length.saturating_sub(8));
    if size > limit {
        return Ok(Err(format!("the header's length is {size}, expected at most {limit}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    Ok(Ok((length, header)))
}

impl Checkpoint for Torch {
    type Handle = u64;
    const AXES: Axes = Axes::Torch;

    fn file(&self) -> &str {
        &self.name
    }

    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors<u64>, WeightsError> {
        let find = |suffix: &str| self.find(format!("{}.{suffix}", spec.torch));
        Ok(ConvTensors {
            kernel: find("conv.weight"),
            bias: find("conv.bias").ok(),
            gamma: Some(find("bn.weight")),
            beta: find("bn.bias"),
            mean: find("bn.running_mean"),
            variance: find("bn.running_var"),
        })
    }

    fn dense_tensors(&self) -> Result<Option<DenseTensors<u64>>, WeightsError> {
        let (kernel, bias) = (self.find("fc.weight".to_owned()), self.find("fc.bias".to_owned()));
        Ok((kernel.is_ok() || bias.is_ok()).then_some(DenseTensors { kernel, bias }))
    }

    fn read(&self, tensor: &Tensor<u64>) -> Result<Vec<f32>, WeightsError> {
        values::read(&self.file, self.data_start + tensor.handle, tensor.shape.iter().product())
            .map_err(|source| WeightsError::Read { file: self.name.clone(), source })
    }
}
