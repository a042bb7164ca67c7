//! Names of torchvision and timm: `{layer}.conv.weight` (OIHW), `{layer}.bn.weight`, `.bias`,
//! `.running_mean`, `.running_var`, and of the dense layer `fc.weight`, `fc.bias`. All other
//! tensors, such as `AuxLogits.*` and `*.num_batches_tracked`, are ignored.

use crate::network::ConvSpec;
use crate::weights::error::WeightsError;
use crate::weights::naming::{AveragePooling, Axes, ConvTensors, DenseTensors, LayerNames, Name, Naming};
use crate::weights::tensor_file::Tensors;

pub(super) const TORCHVISION: Naming = Naming {
    axes: Axes::OutputFirst,
    average_pooling: AveragePooling::Torchvision,
    recognises: |tensors| tensors.keys().any(|name| name.ends_with(".conv.weight")),
    read: |_, _, info| Ok(Box::new(TorchNames { dense: info.top.map(|top| top.torch_dense) })),
};

#[derive(Debug)]
struct TorchNames {
    /// Name of the dense layer.
    dense: Option<&'static str>,
}

impl LayerNames for TorchNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let name = |suffix: &str| Name::plain(format!("{}.{suffix}", spec.torch));
        ConvTensors {
            kernel: name("conv.weight"),
            bias: Some(name("conv.bias")),
            gamma: Some(name("bn.weight")),
            beta: name("bn.bias"),
            mean: name("bn.running_mean"),
            variance: name("bn.running_var"),
        }
    }

    fn dense(&self, tensors: &Tensors) -> Result<Option<DenseTensors<Name>>, WeightsError> {
        let Some(dense) = self.dense else { return Ok(None) };
        let names = ["weight", "bias"].map(|suffix| format!("{dense}.{suffix}"));
        let is_there = names.iter().any(|name| tensors.contains_key(name));
        let [kernel, bias] = names.map(Name::plain);
        Ok(is_there.then_some(DenseTensors { kernel, bias }))
    }
}
