//! HDF5 files, as Keras writes them.

use std::collections::BTreeMap;
use std::fs::File;

use hdf5_pure::{DType, Dataset, Error, Group, Layout, Source, make_f32_type};

use crate::util::files::one_line;
use crate::util::read_at::read_f32_at;
use crate::weights::paged_file::PagedFile;
use crate::weights::tensor_file::{Container, Opened, ReadError, TensorFile, TensorInfo, Tensors};

pub(super) const HDF5: Container = Container {
    name: "HDF5",
    title: "Keras HDF5 (.h5 or .weights.h5)",
    recognises: |magic| magic.starts_with(b"\x89HDF"),
    open,
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
    /// For values that need no decoding, and its bytes.
    file: File,
    len: u64,
    /// By their paths.
    datasets: BTreeMap<String, Dataset>,
}

/// Reads the tree of groups and the header of every dataset.
fn open(file: File) -> Opened {
    let pages = PagedFile::new(&file)?;
    let len = pages.len();
    let tree = hdf5_pure::File::from_source(pages).map_err(ReadError::damaged)?;
    let (mut tensors, mut datasets) = (Tensors::new(), BTreeMap::new());
    let mut groups = vec![(Vec::new(), tree.root())];
    let mut groups_left = MAX_GROUPS;
    while let Some((path, group)) = groups.pop() {
        let path_of = |name: String| [&path[..], &[name]].concat();
        let members = group.iter_datasets().map_err(ReadError::damaged)?;
        let label = if members.len() == 0 { None } else { name_of(&group, &path)? };
        for (name, dataset) in members {
            let name = path_of(name).join("/");
            tensors.insert(name.clone(), info(&dataset, label.clone()));
            datasets.insert(name, dataset);
        }
        for (name, child) in group.iter_groups().map_err(ReadError::damaged)? {
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
    Ok((tensors, Box::new(Hdf5 { file, len, datasets })))
}

/// The attribute `name` of a group that has one.
fn name_of(group: &Group, path: &[String]) -> Result<Option<String>, ReadError> {
    if path.last().is_none_or(|last| last != LABELLED) {
        return Ok(None);
    }
    let attributes = group.attrs().map_err(ReadError::damaged)?;
    Ok(attributes.get("name").and_then(|name| name.as_str()).map(str::to_owned))
}

/// A header that cannot be read shows as the tensor's type.
fn info(dataset: &Dataset, group: Option<String>) -> TensorInfo {
    let (shape, other_type) = match (dataset.shape(), dataset.dtype()) {
        (Ok(shape), Ok(DType::F32)) => (shape, None),
        (Ok(shape), Ok(other)) => (shape, Some(one_line(&other.to_string()))),
        (Err(error), _) | (_, Err(error)) => (vec![], Some(one_line(&format!("unknown ({error})")))),
    };
    let shape = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
    TensorInfo { group, shape, other_type }
}

impl TensorFile for Hdf5 {
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let count = tensor.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let count = count.ok_or_else(|| ReadError::Damaged(format!("found shape {:?}", tensor.shape)))?;
        let dataset = self.datasets.get(name).ok_or_else(|| ReadError::damaged("not found"))?;
        let values = match plain_values(dataset, count, self.len) {
            Some(at) => read_f32_at(&self.file, at, count)?,
            None => dataset.read_f32().map_err(|error| match error {
                Error::Io(source) => ReadError::Io(source),
                error => ReadError::damaged(error),
            })?,
        };
        if values.len() != count {
            return Err(ReadError::Damaged(format!("found {} values, expected {count}", values.len())));
        }
        Ok(values)
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
