//! HDF5 files, as Keras writes them.

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::{
    DType, Dataset, Datatype, DatatypeByteOrder, Error, FormatError, Group, Layout, make_f32_type,
    make_f64_type,
};

use crate::util::files::one_line;
use crate::util::read_at::Section;
use crate::util::words;
use crate::weights::paged_file::{LINK, PagedFile};
use crate::weights::tensor_file::{Container, Elements, Opened, ReadError, TensorFile, TensorInfo, Tensors};

pub(super) const HDF5: Container = Container {
    name: "HDF5",
    title: "Keras HDF5 (.h5 or .weights.h5)",
    recognises: |magic| magic.starts_with(b"\x89HDF"),
    open: |section, _: &Path| open(section),
};

/// More than any nesting of models, and an end to links that form a ring.
const MAX_DEPTH: usize = 12;
/// More than any network's.
const MAX_GROUPS: usize = 20_000;

/// Groups of the root that hold no weights: an optimizer's state.
const NO_WEIGHTS: [&str; 2] = ["optimizer", "optimizer_weights"];

/// Groups of this name have what their tensors belong to as an attribute.
const LABELLED: &str = "vars";

#[derive(Debug)]
struct Hdf5 {
    /// For values that need no decoding.
    section: Section,
    /// By their paths.
    datasets: BTreeMap<String, Dataset>,
}

/// Where a saved model has its description: an attribute of the root.
const MODEL_CONFIG: &str = "model_config";

/// More than any description.
pub(super) const MAX_CONFIG: u64 = 8 << 20;

/// Reads the tree of groups and the header of every dataset.
pub(super) fn open(section: Section) -> Result<Opened, ReadError> {
    let pages = PagedFile::new(section.clone());
    let tree = hdf5_pure::File::from_source(pages).map_err(read_error)?;
    let (mut tensors, mut datasets) = (Tensors::new(), BTreeMap::new());
    let mut groups = vec![(Vec::new(), tree.root())];
    let mut groups_left = MAX_GROUPS;
    while let Some((path, group)) = groups.pop() {
        let path_of = |name: String| [&path[..], &[name]].concat();
        let members = group.iter_datasets().map_err(read_error)?;
        let label = if members.len() == 0 { None } else { name_of(&group, &path)? };
        for (name, dataset) in members {
            let name = path_of(name).join("/");
            tensors.insert(name.clone(), info(&dataset, label.clone()));
            datasets.insert(name, dataset);
        }
        for (name, child) in group.iter_groups().map_err(read_error)? {
            if path.is_empty() && NO_WEIGHTS.contains(&&name[..]) {
                continue;
            }
            if path.len() == MAX_DEPTH || groups_left == 0 {
                return Err(ReadError::damaged("groups in groups without end"));
            }
            groups_left -= 1;
            groups.push((path_of(name), child));
        }
    }
    let config = tree.root().attrs().map_err(read_error)?.remove(MODEL_CONFIG);
    let text = config.as_ref().and_then(|text| text.as_str());
    if let Some(found) = text.map(str::len).filter(|&length| length as u64 > MAX_CONFIG) {
        let reason = format!("{MODEL_CONFIG}: found {found} bytes, expected at most {MAX_CONFIG}");
        return Err(ReadError::Damaged(reason));
    }
    let model_config = text.map(serde_json::from_str).transpose();
    let model_config = model_config
        .map_err(|error| ReadError::Damaged(format!("{MODEL_CONFIG}: {}", words::of_json(&error))))?;
    Ok(Opened { tensors, file: Box::new(Hdf5 { section, datasets }), model_config, others: Vec::new() })
}

/// What an error of the reader says of a file: that it is damaged, or that it is HDF5 which is not read.
fn read_error(error: Error) -> ReadError {
    let Error::Format(format) = &error else {
        return match error {
            Error::Io(source) => ReadError::Io(source),
            error => ReadError::damaged(error),
        };
    };
    let unsupported = |reason: &str| ReadError::Unsupported(reason.to_owned());
    match format {
        FormatError::Source(reason) if reason == LINK => unsupported(LINK),
        FormatError::UnexpectedEof { expected, available } => {
            ReadError::Damaged(format!("truncated: found {available} bytes of {expected}"))
        }
        FormatError::NestingDepthExceeded => unsupported("headers or attributes in more parts than are read"),
        FormatError::ChunkedReadError(reason) if reason.contains("cannot be enumerated") => {
            unsupported("chunks in a version 2 B-tree, as several unlimited dimensions have them")
        }
        FormatError::UnsupportedMessage(_)
        | FormatError::UnsupportedFilteredHeapObject
        | FormatError::UnsupportedVirtualLayout
        | FormatError::UnsupportedExternalStorage
        | FormatError::UnsupportedSohmReference
        | FormatError::UnsupportedFilter(_)
        | FormatError::UnsupportedZfp(_) => ReadError::Unsupported(error.to_string()),
        _ => ReadError::damaged(error),
    }
}

/// The attribute `name` of a group that has one.
fn name_of(group: &Group, path: &[String]) -> Result<Option<String>, ReadError> {
    if path.last().is_none_or(|last| last != LABELLED) {
        return Ok(None);
    }
    let attributes = group.attrs().map_err(read_error)?;
    Ok(attributes.get("name").and_then(|name| name.as_str()).map(str::to_owned))
}

/// A header that cannot be read shows as the tensor's type.
fn info(dataset: &Dataset, group: Option<String>) -> TensorInfo {
    let (shape, elements) = match (dataset.shape(), dataset.dtype()) {
        (Ok(shape), Ok(DType::F32)) => (shape, ieee(dataset, Elements::F32, &make_f32_type())),
        (Ok(shape), Ok(DType::F64)) => (shape, ieee(dataset, Elements::F64, &make_f64_type())),
        (Ok(shape), Ok(other)) => (shape, Elements::Other(one_line(&other.to_string()).into())),
        (Err(error), _) | (_, Err(error)) => {
            (vec![], Elements::Other(one_line(&format!("unknown ({error})")).into()))
        }
    };
    let shape = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
    TensorInfo { group, shape, elements }
}

/// The elements, if their bits lie as `usual` has them, whichever byte comes first. HDF5 has numbers with
/// other biases and places of exponents, which the reader would take for these.
fn ieee(dataset: &Dataset, elements: Elements, usual: &Datatype) -> Elements {
    use DatatypeByteOrder::{BigEndian, LittleEndian};
    let layout = |datatype: &Datatype| match datatype {
        Datatype::FloatingPoint { layout, byte_order: LittleEndian | BigEndian, .. } => Some(*layout),
        _ => None,
    };
    match dataset.datatype() {
        Ok(datatype) if layout(&datatype) == layout(usual) => elements,
        _ => Elements::Other(format!("{elements} of another layout").into()),
    }
}

impl TensorFile for Hdf5 {
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let count = tensor.count()?;
        let dataset = self.datasets.get(name).ok_or_else(|| ReadError::damaged("not found"))?;
        ensure_chunks(dataset, tensor, count, self.section.size())?;
        let values = match plain_values(dataset, count, self.section.size()) {
            Some(at) => self.section.read_f32_at(at, count)?,
            None if tensor.elements == Elements::F64 => {
                let values = dataset.read_f64().map_err(read_error)?;
                values.into_iter().map(|value| value as f32).collect()
            }
            None => dataset.read_f32().map_err(read_error)?,
        };
        if values.len() != count {
            return Err(ReadError::Damaged(format!("found {} values, expected {count}", values.len())));
        }
        Ok(values)
    }
}

/// How much larger than its tensor a chunk may be, in bytes: writers choose chunks of up to 1 MiB
/// for tensors that may grow.
const CHUNK_SLACK: u64 = 1 << 20;

/// How much larger than its file a tensor in chunks may be, and how large in any file. Chunks may be
/// compressed, or not be there at all; reading takes the memory of all.
const MOST_OF_FILE: u64 = 64;
const MOST_OF_ANY: u64 = 16 << 20;

/// Refuses chunks that are larger than their tensor, of which each takes its whole size to read, and
/// tensors that their file cannot have.
fn ensure_chunks(dataset: &Dataset, tensor: &TensorInfo, count: usize, len: u64) -> Result<(), ReadError> {
    let Layout::Chunked { chunk_shape, .. } = dataset.layout().map_err(ReadError::damaged)? else {
        return Ok(());
    };
    let size = if tensor.elements == Elements::F64 { size_of::<f64>() } else { size_of::<f32>() } as u64;
    let whole = (count as u64).saturating_mul(size);
    let most_of_file = len.saturating_mul(MOST_OF_FILE).max(MOST_OF_ANY);
    if whole > most_of_file {
        return Err(ReadError::Damaged(format!(
            "found shape {:?} in chunks of a file of {len} bytes, expected at most {most_of_file} bytes",
            tensor.shape
        )));
    }
    let most = whole.saturating_add(CHUNK_SLACK);
    let bytes = chunk_shape.iter().try_fold(size, |bytes, extent| bytes.checked_mul(*extent));
    match bytes {
        Some(bytes) if bytes <= most => Ok(()),
        _ => Err(ReadError::Damaged(format!(
            "found chunks of {chunk_shape:?} for shape {:?}, expected at most {most} bytes",
            tensor.shape
        ))),
    }
}

/// Where the values of a dataset start, if they lie in a file of `len` bytes in one piece as memory
/// has them: that is so in what Keras writes, and reading them takes half the time then.
fn plain_values(dataset: &Dataset, count: usize, len: u64) -> Option<u64> {
    let bytes = (count as u64).checked_mul(size_of::<f32>() as u64)?;
    let Layout::Contiguous { address: Some(address), size } = dataset.layout().ok()? else { return None };
    let is_inside = address.checked_add(bytes)? <= len;
    (is_inside && size == bytes && dataset.datatype().ok()? == make_f32_type()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hdf5_pure::{FileBuilder, MaxExtent};

    use super::*;

    #[test]
    fn a_tensor_in_chunks_is_no_larger_than_its_file_can_have() {
        for (rows, is_read) in [(1 << 12, true), (1 << 26, false)] {
            let mut builder = FileBuilder::new();
            let zeros = vec![0.0; 1 << 12];
            let dataset = builder.create_dataset("w").with_f32_data(&zeros).with_shape(&[1 << 12]);
            dataset.with_maxshape(&[MaxExtent::Unlimited]).with_chunks(&[1 << 12]);
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&builder.finish().expect("a file")).expect("written");
            let opened = open(Section::whole(file).expect("an open file")).expect("a tree");
            // As a file says it whose chunks are not there.
            let info = TensorInfo { shape: vec![rows], ..opened.tensors["w"].clone() };
            match opened.file.read_f32("w", &info) {
                Ok(values) => assert!(is_read && values == zeros),
                Err(error) => {
                    assert!(!is_read && format!("{error:?}").contains("in chunks of a file of"), "{error:?}")
                }
            }
        }
    }

    #[test]
    fn chunks_may_be_larger_than_their_tensor_by_a_mebibyte() {
        for (chunk, is_read) in [(64, true), (1 << 18, true), (1 << 19, false)] {
            let mut builder = FileBuilder::new();
            let dataset = builder.create_dataset("w").with_f32_data(&[1.0; 8]).with_shape(&[8]);
            dataset.with_maxshape(&[MaxExtent::Unlimited]).with_chunks(&[chunk]);
            let bytes = builder.finish().expect("a file");
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&bytes).expect("written");
            let opened = open(Section::whole(file).expect("an open file")).expect("a tree");
            match opened.file.read_f32("w", &opened.tensors["w"]) {
                Ok(values) => assert!(is_read && values == [1.0; 8]),
                Err(ReadError::Damaged(reason)) => {
                    assert!(!is_read && reason.contains("expected at most 1048608 bytes"), "{reason}");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}
