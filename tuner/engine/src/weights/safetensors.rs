//! Safetensors files: a header in JSON, then the values; and several of them by an index.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::util::files::{file_name, one_line};
use crate::util::read_at::Section;
use crate::util::words;
use crate::weights::tensor_file::{Container, Elements, Opened, ReadError, TensorFile, TensorInfo, Tensors};

/// The container: 8 bytes of length, then a JSON object.
pub(super) const SAFETENSORS: Container = Container {
    name: "safetensors",
    title: "safetensors",
    recognises: |magic| magic.get(8) == Some(&b'{'),
    open: |section, _| {
        let (tensors, file) = open(section)?;
        Ok(Opened { tensors, file: Box::new(file), model_config: None, others: Vec::new() })
    },
};

/// A JSON object that says which file of the same folder has which tensor.
pub(super) const SAFETENSORS_INDEX: Container = Container {
    name: "safetensors index",
    title: "an index of safetensors (.safetensors.index.json)",
    recognises: |magic| magic.trim_ascii_start().starts_with(b"{"),
    open: open_index,
};

/// More than the header of any network.
const MAX_HEADER: u64 = 16 << 20;

/// More than any index.
const MAX_INDEX: u64 = 16 << 20;

#[derive(Debug)]
struct Safetensors {
    metadata: Metadata,
    data_start: u64,
    section: Section,
}

/// Reads the header and checks that the file's length is what it says.
fn open(section: Section) -> Result<(Tensors, Safetensors), ReadError> {
    let length = section.size();
    let mut size = [0; 8];
    section.read_exact_at(&mut size, 0)?;
    let size = u64::from_le_bytes(size);
    let limit = MAX_HEADER.min(length.saturating_sub(8));
    if size > limit {
        let reason = format!("the header's length is {size}, expected at most {limit}");
        return Err(ReadError::Damaged(reason));
    }
    let mut header = vec![0; size as usize];
    section.read_exact_at(&mut header, 8)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| ReadError::Damaged(format!("header: {}", words::of_json(&error))))?;
    let data_start = 8 + size;
    let (found, expected) = (length - data_start, metadata.data_len() as u64);
    if found != expected {
        return Err(ReadError::Damaged(format!("found {found} bytes of values, expected {expected}")));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let elements = match info.dtype {
            Dtype::F32 => Elements::F32,
            Dtype::F16 => Elements::F16,
            Dtype::BF16 => Elements::Bf16,
            Dtype::F64 => Elements::F64,
            other => Elements::Other(other.to_string().into()),
        };
        (name, TensorInfo { group: None, shape: info.shape.clone(), elements })
    });
    Ok((tensors.collect(), Safetensors { metadata, data_start, section }))
}

impl TensorFile for Safetensors {
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let info = self.metadata.info(name).ok_or_else(|| ReadError::damaged("not found"))?;
        let start = self.data_start + info.data_offsets.0 as u64;
        tensor.elements.read(&self.section, start, tensor.count()?)
    }
}

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Several files, by the names that the index has for them.
#[derive(Debug)]
struct Shards {
    files: BTreeMap<String, Safetensors>,
    weight_map: BTreeMap<String, String>,
}

fn open_index(section: Section, path: &Path) -> Result<Opened, ReadError> {
    let mut text = vec![0; section.size().min(MAX_INDEX) as usize];
    section.read_exact_at(&mut text, 0)?;
    let Ok(Index { weight_map }) = serde_json::from_slice(&text) else {
        return Err(ReadError::Content {
            found: "a JSON file without `weight_map`".to_owned(),
            expected: SAFETENSORS_INDEX.title.to_owned(),
        });
    };
    let (mut tensors, mut files) = (Tensors::new(), BTreeMap::new());
    for (tensor, shard) in &weight_map {
        if !files.contains_key(shard) {
            files.insert(shard.clone(), open_shard(path, shard)?);
        }
        let (of_shard, _) = &files[shard];
        let info = of_shard.get(tensor).ok_or_else(|| ReadError::Content {
            found: format!("no tensor {} in {}", one_line(tensor), one_line(shard)),
            expected: "one, as the index says".to_owned(),
        })?;
        tensors.insert(tensor.clone(), info.clone());
    }
    let is_listed = |tensor: &&String| weight_map.contains_key(*tensor);
    let unlisted =
        files.values().flat_map(|(tensors, _): &(Tensors, _)| tensors.keys()).find(|t| !is_listed(t));
    if let Some(tensor) = unlisted {
        return Err(ReadError::Content {
            found: format!("a tensor {} that the index does not list", one_line(tensor)),
            expected: "all tensors of its files".to_owned(),
        });
    }
    let files: BTreeMap<_, _> = files.into_iter().map(|(name, (_, file))| (name, file)).collect();
    let others = files.iter().map(|(name, file)| (path.with_file_name(name), file.section.clone())).collect();
    Ok(Opened { tensors, file: Box::new(Shards { files, weight_map }), model_config: None, others })
}

/// A file of an index, in its folder.
fn open_shard(index: &Path, shard: &str) -> Result<(Tensors, Safetensors), ReadError> {
    let content = |found: String| ReadError::Content { found, expected: "the files of the index".to_owned() };
    if Path::new(shard).file_name() != Some(shard.as_ref()) {
        return Err(content(format!("a file {} that is in another folder", one_line(shard))));
    }
    let path = index.with_file_name(shard);
    let file = File::open(&path).and_then(Section::whole);
    let file =
        file.map_err(|error| content(format!("{} that cannot be read ({error})", file_name(&path))))?;
    open(file).map_err(|error| error.at(one_line(shard)))
}

impl TensorFile for Shards {
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        self.files[&self.weight_map[name]].read_f32(name, tensor)
    }
}
