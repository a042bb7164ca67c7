//! Safetensors files: a header in JSON, then the values.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use ::safetensors::tensor::{Dtype, Metadata};

use crate::util::read_at::read_f32_at;
use crate::weights::tensor_file::{Container, MAGIC, Opened, ReadError, TensorFile, TensorInfo};

/// The container: 8 bytes of length, then a JSON object.
pub(super) const SAFETENSORS: Container = Container {
    name: "safetensors",
    title: "safetensors",
    recognises: |magic| magic.len() as u64 == MAGIC && magic.ends_with(b"{"),
    open,
};

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Debug)]
struct Safetensors {
    metadata: Metadata,
    data_start: u64,
    file: File,
}

/// Reads the header and checks that the file's length is what it says.
fn open(mut file: File) -> Opened {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    let limit = MAX_HEADER.min(length.saturating_sub(8));
    if size > limit {
        let reason = format!("the header's length is {size}, expected at most {limit}");
        return Err(ReadError::Damaged(reason));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(ReadError::damaged)?;
    let data_start = 8 + size;
    let (found, expected) = (length - data_start, metadata.data_len() as u64);
    if found != expected {
        return Err(ReadError::Damaged(format!("found {found} bytes of values, expected {expected}")));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let other_type = (info.dtype != Dtype::F32).then(|| info.dtype.to_string());
        (name, TensorInfo { group: None, shape: info.shape.clone(), other_type })
    });
    Ok((tensors.collect(), Box::new(Safetensors { metadata, data_start, file })))
}

impl TensorFile for Safetensors {
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let info = self.metadata.info(name).ok_or_else(|| ReadError::damaged("not found"))?;
        let start = self.data_start + info.data_offsets.0 as u64;
        Ok(read_f32_at(&self.file, start, tensor.shape.iter().product())?)
    }
}
