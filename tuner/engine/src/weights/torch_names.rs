//! Names of torchvision and timm: `{layer}.conv.weight` (OIHW), `{layer}.bn.weight`, `.bias`, `.running_mean`,
//! `.running_var`, and of the dense layer `fc.weight`, `fc.bias`. All other tensors, such as `AuxLogits.*` and
//! `*.num_batches_tracked`, are ignored.

use crate::network::spec::ConvSpec;
use crate::weights::error::WeightsError;
use crate::weights::naming::{AveragePooling, Axes, ConvNames, DenseNames, LayerNames, Name, Naming};
use crate::weights::tensor_file::TensorFile;

/// The scheme.
pub(super) const TORCHVISION: Naming = Naming {
    recognises: |list| list.iter().any(|tensor| tensor.name.ends_with(".conv.weight")),
    read: |_, _, info| Ok(Box::new(TorchNames { dense: info.top.map(|top| top.torch_dense) })),
};

#[derive(Debug)]
struct TorchNames {
    /// Name of the dense layer.
    dense: Option<&'static str>,
}

impl LayerNames for TorchNames {
    fn axes(&self) -> Axes {
        Axes::OutputFirst
    }

    fn average_pooling(&self) -> AveragePooling {
        AveragePooling::Torchvision
    }

    fn conv(&self, spec: &ConvSpec) -> ConvNames {
        let name = |suffix: &str| Name::plain(format!("{}.{suffix}", spec.torch));
        ConvNames {
            kernel: name("conv.weight"),
            bias: name("conv.bias"),
            gamma: Some(name("bn.weight")),
            beta: name("bn.bias"),
            mean: name("bn.running_mean"),
            variance: name("bn.running_var"),
        }
    }

    fn dense(&self, file: &dyn TensorFile) -> Result<Option<DenseNames>, WeightsError> {
        let Some(dense) = self.dense else { return Ok(None) };
        let names = ["weight", "bias"].map(|suffix| format!("{dense}.{suffix}"));
        let is_there = names.iter().any(|name| file.find(name).is_some());
        let [kernel, bias] = names.map(Name::plain);
        Ok(is_there.then_some(DenseNames { kernel, bias }))
    }
}
