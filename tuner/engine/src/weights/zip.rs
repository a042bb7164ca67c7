//! Zip archives: `.keras` of Keras 3 and `.pt` of PyTorch. Both store their members uncompressed,
//! so that a member is a part of the file.

use std::path::Path;

use crate::util::read_at::Section;
use crate::util::words;
use crate::weights::archive::{bytes, member, members};
use crate::weights::hdf5::{self, MAX_CONFIG};
use crate::weights::tensor_file::{Container, Opened, ReadError};
use crate::weights::torch;

pub(super) const ZIP: Container = Container {
    name: "zip",
    title: "a zip archive of Keras (.keras) or PyTorch (.pt or .pth)",
    recognises: |magic| magic.starts_with(b"PK\x03\x04"),
    open,
};

/// Weights and description in Keras's archives.
const KERAS_WEIGHTS: &str = "model.weights.h5";
const KERAS_CONFIG: &str = "config.json";

fn open(section: Section, _: &Path) -> Result<Opened, ReadError> {
    let members = members(&section)?;
    if members.contains_key(KERAS_WEIGHTS) {
        let mut opened = hdf5::open(member(&members, KERAS_WEIGHTS)?)?;
        let config = bytes(&member(&members, KERAS_CONFIG)?, MAX_CONFIG)?;
        let config = serde_json::from_slice(&config);
        opened.model_config =
            Some(config.map_err(|error| {
                ReadError::Damaged(format!("{KERAS_CONFIG}: {}", words::of_json(&error)))
            })?);
        return Ok(opened);
    }
    match members.keys().find_map(|name| name.strip_suffix(torch::PICKLE)) {
        Some(folder) => torch::open_archive(&members, folder),
        None => Err(ReadError::Content {
            found: "a zip archive of other members".to_owned(),
            expected: format!("{KERAS_WEIGHTS} as in .keras, or {} as in .pt files", torch::PICKLE),
        }),
    }
}
