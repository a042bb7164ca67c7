//! What is to be computed: networks as data, graphs of steps, and the choice of a kernel for each.

pub mod block_variant;
pub mod builder;
pub mod calibration;
pub mod candidates;
pub mod choice;
pub mod dtypes;
pub mod graph;
pub mod inception_v3;
pub mod inception_v3_fid;
pub mod model;
pub mod models;
pub mod spec;

pub use block_variant::{Block, BlockVariant, problems, with_variant};
pub use builder::BlockInfo;
pub use calibration::{Calibration, ScaleError, Scales, scales};
pub use candidates::{
    Excluded, SupportedKernel, available, built_in, choice_reading, default_choice, default_choices,
    lowest_choices, reproducible_choices, supported,
};
pub use choice::{
    CandidateId, Choice, StepFormats, TOOL, multiply_adds, problem_name, tuning_text, tuning_to_json,
};
pub use dtypes::{
    BF16_ERROR, DTYPES, F32_ERROR, INT8_ERROR, Precision, cheapest, may_be_u8, of_tensors, pair, pairs,
};
pub use graph::{Graph, Slice, Split, Step, TensorId, Weight};
pub use inception_v3::NETWORK;
pub use model::{Activation, AveragePooling, Head, HeadLayer, Model, ModelInfo, ModelShape};
pub use spec::{ConvSpec, InputSpec, Spec};

/// All networks. A new one is a file of data and a row here.
pub const NETWORKS: [&builder::Network; 2] = [&inception_v3::NETWORK, &inception_v3_fid::NETWORK];
