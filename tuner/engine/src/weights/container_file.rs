//! A file of weights of any container, whatever its names.

use std::path::Path;

use crate::util::files::{file_name, starts_like};
use crate::util::read_at::Section;
use crate::weights::CONTAINERS;
use crate::weights::error::WeightsError;
use crate::weights::naming::Naming;
use crate::weights::tensor_file::{Container, Elements, MAGIC, Opened};

/// A file whose headers have been read.
pub(super) struct ContainerFile {
    /// The file, for messages.
    pub name: String,
    pub section: Section,
    pub container: &'static Container,
    /// The naming scheme of the container's files whose names are those of none.
    pub usual_naming: &'static Naming,
    pub opened: Opened,
}

impl ContainerFile {
    /// Opens a file by its container, which is recognised by content.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let name = file_name(path);
        let read = |source| WeightsError::Read { file: name.clone(), source };
        let section = std::fs::File::open(path).and_then(Section::whole).map_err(read)?;
        let mut magic = vec![0; section.size().min(MAGIC) as usize];
        section.read_exact_at(&mut magic, 0).map_err(read)?;
        let known = CONTAINERS.iter().find(|(container, _)| (container.recognises)(&magic));
        let (container, usual_naming) = known.ok_or_else(|| WeightsError::Content {
            file: name.clone(),
            found: starts_like(&magic),
            expected: CONTAINERS.each_ref().map(|(container, _)| container.title).join(" or "),
        })?;
        let opened = (container.open)(section.clone(), path);
        let opened = opened.map_err(|error| WeightsError::of(error, &name, container.name))?;
        Ok(Self { name, section, container, usual_naming, opened })
    }
}

/// Hears of a tensor: its name in the file, its shape, and its values or why they cannot be read.
pub type SeeTensor<'a> = dyn FnMut(&str, &[usize], Result<Vec<f32>, WeightsError>) + 'a;

/// Gives all tensors of floating-point numbers to `see`. One at a time is in memory.
///
/// # Errors
/// If the headers cannot be read.
pub fn for_each_tensor(path: &Path, see: &mut SeeTensor) -> Result<(), WeightsError> {
    let ContainerFile { name: file, container, opened, .. } = ContainerFile::open(path)?;
    let numbers = opened.tensors.iter().filter(|(_, info)| !matches!(info.elements, Elements::Other(_)));
    for (name, info) in numbers {
        let read = opened.file.read_f32(name, info);
        see(name, &info.shape, read.map_err(|error| WeightsError::of(error, &file, container.name)));
    }
    Ok(())
}
