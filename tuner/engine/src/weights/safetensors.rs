//! Safetensors files: a header in JSON, then the values.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata};

use crate::weights::error::{WeightsError, file_name};
use crate::weights::read_f32::read_f32;
use crate::weights::tensor_file::{Container, Listed, MAGIC, ReadError, TensorFile, TensorInfo};

/// The container: 8 bytes of length, then a JSON object.
pub(super) const SAFETENSORS: Container = Container {
    title: "safetensors",
    recognises: |magic| magic.len() as u64 == MAGIC && magic.ends_with(b"{"),
    open: |path, file| Ok(Box::new(Safetensors::open(path, file)?)),
};

const FORMAT: &str = "safetensors";

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// An open file; tensors are read from it one by one.
#[derive(Debug)]
struct Safetensors {
    name: String,
    metadata: Metadata,
    data_start: u64,
    file: File,
}

impl Safetensors {
    /// Reads the header and checks that the file's length is what it says.
    fn open(path: &Path, mut file: File) -> Result<Self, WeightsError> {
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

impl TensorFile for Safetensors {
    fn file(&self) -> &str {
        &self.name
    }

    fn format(&self) -> &'static str {
        FORMAT
    }

    fn list(&self) -> Vec<Listed> {
        self.metadata.offset_keys().into_iter().map(|name| Listed { name, group: None }).collect()
    }

    fn find(&self, name: &str) -> Option<TensorInfo> {
        let info = self.metadata.info(name)?;
        Some(TensorInfo {
            name: name.to_owned(),
            shape: info.shape.clone(),
            other_type: (info.dtype != Dtype::F32).then(|| info.dtype.to_string()),
        })
    }

    fn read_f32(&self, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let info = self.metadata.info(&tensor.name);
        let info = info.ok_or_else(|| ReadError::Damaged("not found".to_owned()))?;
        let start = self.data_start + info.data_offsets.0 as u64;
        read_f32(&self.file, start, tensor.shape.iter().product()).map_err(ReadError::Io)
    }
}
