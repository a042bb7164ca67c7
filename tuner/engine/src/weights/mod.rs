//! Weights: made up, or read from files.
//!
//! Containers (`tensor_file`) find tensors and read their values, naming schemes (`naming`) say
//! which tensor belongs to which layer, and `checked` puts both together and checks what is read.

mod activation_means;
mod checked;
pub mod error;
mod hdf5;
mod keras_names;
pub mod naming;
mod paged_file;
mod safetensors;
pub mod source;
pub mod synthetic;
mod tensor_file;
mod torch_names;

pub use error::WeightsError;
pub use naming::AveragePooling;
pub use source::Weights;
pub use synthetic::image;

#[cfg(test)]
mod tests;

/// All containers, each with the naming scheme of a file whose names are those of none. A new one
/// is a file and a row here.
const CONTAINERS: [(tensor_file::Container, &naming::Naming); 2] =
    [(hdf5::HDF5, &keras_names::KERAS), (safetensors::SAFETENSORS, &torch_names::TORCHVISION)];

/// All naming schemes. A new one is a file and a row here.
const NAMING_SCHEMES: [&naming::Naming; 2] = [&torch_names::TORCHVISION, &keras_names::KERAS];
