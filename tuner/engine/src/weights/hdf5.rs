//! HDF5 files, as Keras writes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use hdf5_pure::{DType, Dataset, Error, Group, Layout, Source, make_f32_type};

use crate::util::files::one_line;
use crate::weights::error::{WeightsError, file_name};
use crate::weights::paged_file::PagedFile;
use crate::weights::read_f32::read_f32;
use crate::weights::tensor_file::{Container, Listed, ReadError, TensorFile, TensorInfo};

/// The container.
pub(super) const HDF5: Container = Container {
    title: "Keras HDF5 (.h5 or .weights.h5)",
    recognises: |magic| magic.starts_with(b"\x89HDF"),
    open: |path, file| Ok(Box::new(Hdf5::open(path, file)?)),
};

const FORMAT: &str = "HDF5";

/// More than any nesting of models, and an end to links that form a ring.
const MAX_DEPTH: usize = 12;

/// More than any network's, and an end to links that form a ring.
const MAX_GROUPS: usize = 20_000;

/// Groups of the root that hold no weights: an optimizer's state.
const NO_WEIGHTS: [&str; 2] = ["optimizer", "optimizer_weights"];

/// Groups of this name have what their tensors belong to as an attribute.
const LABELLED: &str = "vars";

/// An open file; tensors are read from it one by one.
#[derive(Debug)]
struct Hdf5 {
    name: String,
    /// For values that need no decoding, and its bytes.
    file: File,
    len: u64,
    /// By their paths.
    tensors: BTreeMap<String, Labelled>,
}

#[derive(Debug)]
struct Labelled {
    dataset: Dataset,
    /// The attribute `name` of its group.
    group: Option<String>,
}

impl Hdf5 {
    /// Reads the tree of groups and the header of every dataset.
    fn open(path: &Path, file: File) -> Result<Self, WeightsError> {
        let pages =
            PagedFile::new(&file).map_err(|source| WeightsError::Read { file: file_name(path), source })?;
        let mut hdf5 = Self { name: file_name(path), len: pages.len(), file, tensors: BTreeMap::new() };
        let tree = hdf5_pure::File::from_source(pages).map_err(|error| hdf5.damaged(error))?;
        hdf5.walk(&tree.root(), &mut Vec::new(), &mut { MAX_GROUPS })?;
        Ok(hdf5)
    }

    fn walk(
        &mut self,
        group: &Group,
        path: &mut Vec<String>,
        groups_left: &mut usize,
    ) -> Result<(), WeightsError> {
        if path.len() > MAX_DEPTH || *groups_left == 0 {
            return Err(self.damaged("groups in groups without end"));
        }
        *groups_left -= 1;
        let mut label = None;
        for (name, dataset) in group.iter_datasets().map_err(|error| self.damaged(error))? {
            let label = match &label {
                Some(label) => label,
                None => label.insert(self.label(group, path)?),
            };
            let full = if path.is_empty() { name } else { format!("{}/{name}", path.join("/")) };
            self.tensors.insert(full, Labelled { dataset, group: label.clone() });
        }
        for (name, child) in group.iter_groups().map_err(|error| self.damaged(error))? {
            if path.is_empty() && NO_WEIGHTS.contains(&&name[..]) {
                continue;
            }
            path.push(name);
            self.walk(&child, path, groups_left)?;
            path.pop();
        }
        Ok(())
    }

    /// The attribute `name` of a group that has one.
    fn label(&self, group: &Group, path: &[String]) -> Result<Option<String>, WeightsError> {
        if path.last().is_none_or(|last| last != LABELLED) {
            return Ok(None);
        }
        let attributes = group.attrs().map_err(|error| self.damaged(error))?;
        Ok(attributes.get("name").and_then(|name| name.as_str()).map(str::to_owned))
    }

    fn damaged(&self, error: impl std::fmt::Display) -> WeightsError {
        WeightsError::damaged(&self.name, FORMAT, error)
    }
}

impl TensorFile for Hdf5 {
    fn file(&self) -> &str {
        &self.name
    }

    fn format(&self) -> &'static str {
        FORMAT
    }

    fn list(&self) -> Vec<Listed> {
        let listed =
            |(name, tensor): (&String, &Labelled)| Listed { name: name.clone(), group: tensor.group.clone() };
        self.tensors.iter().map(listed).collect()
    }

    /// A header that cannot be read shows as the tensor's type.
    fn find(&self, name: &str) -> Option<TensorInfo> {
        let dataset = &self.tensors.get(name)?.dataset;
        let (shape, other_type) = match (dataset.shape(), dataset.dtype()) {
            (Ok(shape), Ok(DType::F32)) => (shape, None),
            (Ok(shape), Ok(other)) => (shape, Some(one_line(&other.to_string()))),
            (Err(error), _) | (_, Err(error)) => (Vec::new(), Some(one_line(&format!("unknown ({error})")))),
        };
        let shape = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
        Some(TensorInfo { name: name.to_owned(), shape, other_type })
    }

    fn read_f32(&self, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let damaged = |reason: String| ReadError::Damaged(reason);
        let expected = tensor.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let expected = expected.ok_or_else(|| damaged(format!("found shape {:?}", tensor.shape)))?;
        let dataset = &self.tensors.get(&tensor.name).ok_or_else(|| damaged("not found".to_owned()))?.dataset;
        let values = match plain_values(dataset, expected, self.len) {
            Some(at) => read_f32(&self.file, at, expected).map_err(Error::Io),
            None => dataset.read_f32(),
        };
        let values = values.map_err(|error| match error {
            Error::Io(source) => ReadError::Io(source),
            error => damaged(error.to_string()),
        })?;
        if values.len() != expected {
            return Err(damaged(format!("found {} values, expected {expected}", values.len())));
        }
        Ok(values)
    }
}

/// Where the values of a dataset start, if they lie in a file of `len` bytes in one piece as memory has them: that is so
/// in what Keras writes, and reading them takes half the time then.
fn plain_values(dataset: &Dataset, count: usize, len: u64) -> Option<u64> {
    let bytes = (count as u64).checked_mul(size_of::<f32>() as u64)?;
    let Layout::Contiguous { address: Some(address), size } = dataset.layout().ok()? else { return None };
    let is_inside = address.checked_add(bytes)? <= len;
    (is_inside && size == bytes && dataset.datatype().ok()? == make_f32_type()).then_some(address)
}
