//! Weights: made up, or read from files.
//!
//! Containers (`tensor_file`) find tensors and read their values, naming schemes (`naming`) say
//! which tensor belongs to which layer, and `checked` puts both together and checks what is read.

mod activation_means;
mod archive;
mod checked;
mod container_file;
pub mod error;
mod hdf5;
mod head;
mod keras_config;
mod keras_graph;
mod keras_names;
mod names;
pub mod naming;
mod paged_file;
mod pickle;
mod safetensors;
pub mod source;
pub mod synthetic;
mod tensor_file;
mod torch;
mod torch_names;
mod torch_values;
mod zip;

pub use container_file::{SeeTensor, for_each_tensor};
pub use error::WeightsError;
pub use head::HeadOptions;
pub use source::Weights;
pub use synthetic::image;

#[cfg(test)]
mod tests;

/// All containers, each with the naming scheme of a file whose names are those of none. A new one
/// is a file and a row here.
const CONTAINERS: [(tensor_file::Container, &naming::Naming); 5] = [
    (hdf5::HDF5, &keras_names::KERAS),
    (safetensors::SAFETENSORS, &torch_names::TORCHVISION),
    (zip::ZIP, &torch_names::TORCHVISION),
    (torch::TORCH_LEGACY, &torch_names::TORCHVISION),
    (safetensors::SAFETENSORS_INDEX, &torch_names::TORCHVISION),
];

/// All naming schemes. A new one is a file and a row here.
const NAMING_SCHEMES: [&naming::Naming; 2] = [&torch_names::TORCHVISION, &keras_names::KERAS];
