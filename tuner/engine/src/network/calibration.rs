//! Scales of activations: which value 255 of u8 stands for in each layer.

use std::collections::BTreeMap;

use kernels::Dtype;
use serde::{Deserialize, Serialize};

use crate::network::dtypes::{may_be_negative, pooled};
use crate::network::graph::{Graph, Step, Weight};

/// The ranges of a network's activations, found by running images through it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// What tells the weights from others.
    pub weights: String,
    /// Whether images were given, or else built in.
    pub given_images: bool,
    /// How many.
    pub images: usize,
    /// How ranges follow from outputs.
    pub rule: String,
    /// The relative L2 error of the features where all that can be is u8.
    pub rel_error: f64,
    /// Of each convolution, the largest output of each channel that u8 has; larger ones become that.
    #[serde(with = "lists")]
    pub ranges: BTreeMap<String, Vec<f32>>,
}

/// Lists of numbers as text with spaces between: a line each in a plan, not a line a number.
mod lists {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(lists: &BTreeMap<String, Vec<f32>>, to: S) -> Result<S::Ok, S::Error> {
        let text = |list: &Vec<f32>| list.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
        to.collect_map(lists.iter().map(|(name, list)| (name, text(list))))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<BTreeMap<String, Vec<f32>>, D::Error> {
        let number = |layer: &str, text: &str| {
            let wrong = || D::Error::custom(format!("`{layer}`: found `{text}`, expected a number"));
            text.parse::<f32>().map_err(|_| wrong())
        };
        let list = |(layer, text): (String, String)| {
            let list = text.split_whitespace().map(|text| number(&layer, text)).collect::<Result<_, _>>()?;
            Ok((layer, list))
        };
        BTreeMap::<String, String>::deserialize(from)?.into_iter().map(list).collect()
    }
}

/// Why tensors can't be of u8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("step `{layer}`: writes u8, expected f32 or bf16: its outputs may be below zero")]
    Negative { layer: String },
    #[error("step `{layer}`: {what} u8, expected f32 or bf16: it has no range")]
    NoRange { layer: String, what: &'static str },
    #[error("calibration: found no ranges of `{layer}`, expected {channels} above 0, none tiny or huge")]
    Missing { layer: String, channels: usize },
}

/// For each tensor, the scale of each channel: what 1 stands for. None of a tensor that has its
/// values as they are.
pub type Scales = Vec<Option<Vec<f32>>>;

/// The scales of tensors of given types. A pool leaves the scales of its source, whatever the
/// types: so of two tensors with a pool between them both have scales if one is u8.
pub fn scales(
    graph: &Graph,
    types: &[Dtype],
    calibration: Option<&Calibration>,
) -> Result<Scales, ScaleError> {
    let mut is_scaled: Vec<bool> = types.iter().map(|dtype| *dtype == Dtype::U8).collect();
    if !is_scaled.contains(&true) {
        return Ok(vec![None; types.len()]);
    }
    pooled(graph, &mut is_scaled);
    let layer = |step: &Step| step.layers[0].clone();
    let mut scales: Scales = vec![None; types.len()];
    for step in &graph.steps {
        if is_scaled[step.src.tensor] && scales[step.src.tensor].is_none() {
            return Err(ScaleError::NoRange { layer: layer(step), what: "reads" });
        }
        for (segment, slice) in step.dst.iter().enumerate().filter(|(_, slice)| is_scaled[slice.tensor]) {
            if types[slice.tensor] == Dtype::U8 && may_be_negative(&step.problem) {
                return Err(ScaleError::Negative { layer: layer(step) });
            }
            let of_channels = match step.weights.get(segment) {
                _ if step.problem.as_pool().is_ok() => {
                    let src = scales[step.src.tensor].as_ref().expect("a pool's source has scales");
                    src[step.src.channels.clone()].to_vec()
                }
                Some(Weight::Conv(spec)) => {
                    let ranges = calibration.and_then(|calibration| calibration.ranges.get(&spec.name));
                    let ranges = ranges.filter(|ranges| ranges.len() == slice.channels.len());
                    let is_usable =
                        |scale: &f32| *scale > 0.0 && [*scale, 1.0 / scale].iter().all(|s| s.is_normal());
                    let scale = |range: &f32| Some(range / f32::from(u8::MAX)).filter(is_usable);
                    let scales =
                        ranges.and_then(|ranges| ranges.iter().map(scale).collect::<Option<Vec<_>>>());
                    scales.ok_or_else(|| ScaleError::Missing {
                        layer: spec.name.clone(),
                        channels: slice.channels.len(),
                    })?
                }
                _ => return Err(ScaleError::NoRange { layer: layer(step), what: "writes" }),
            };
            let channels = graph.tensors[slice.tensor].c;
            let tensor = scales[slice.tensor].get_or_insert_with(|| vec![1.0; channels]);
            tensor[slice.channels.clone()].copy_from_slice(&of_channels);
        }
    }
    Ok(scales)
}

#[cfg(test)]
mod tests {
    use kernels::PoolKind;

    use super::*;
    use crate::network::block_variant::{BlockVariant, with_variant};
    use crate::network::model::Model;

    fn graph(variant: BlockVariant) -> Graph {
        let plain = Graph::new(&Model::block("mixed0").expect("a block"), 1, PoolKind::Average);
        with_variant(&plain, "mixed0", variant).expect("a variant of the block")
    }

    /// A range for each convolution: 255 times its number from 1 on.
    fn calibration(graph: &Graph) -> Calibration {
        let layers = graph.steps.iter().flat_map(|step| step.weights.iter().zip(&step.dst));
        let layers = layers.filter_map(|(weight, slice)| match weight {
            Weight::Conv(spec) => Some((spec.name.clone(), slice.channels.len())),
            _ => None,
        });
        let range = |(number, (name, channels)): (usize, (String, usize))| {
            (name, vec![255.0 * (number + 1) as f32; channels])
        };
        let ranges = layers.enumerate().map(range).collect();
        Calibration { ranges, ..Calibration::default() }
    }

    #[test]
    fn channels_of_u8_have_the_scale_of_what_writes_them_and_pools_leave_them() {
        let graph = graph(BlockVariant::PLAIN);
        let calibration = calibration(&graph);
        let of = |types: &[Dtype]| scales(&graph, types, Some(&calibration));
        let all_f32 = vec![Dtype::F32; graph.tensors.len()];
        assert!(of(&all_f32).expect("no u8").iter().all(Option::is_none));
        let step = graph.steps.iter().find(|step| step.layers[0] == "mixed0.branch5x5_1").expect("a step");
        let mut types = all_f32.clone();
        types[step.dst[0].tensor] = Dtype::U8;
        let found = of(&types).expect("scales");
        let scale = calibration.ranges["mixed0.branch5x5_1"][0] / 255.0;
        assert_eq!(found[step.dst[0].tensor], Some(vec![scale; 48]));
        assert_eq!(found.iter().flatten().count(), 1);
        // The concat has the scales of four convolutions.
        let concat = graph.output.tensor;
        let mut types = all_f32.clone();
        types[concat] = Dtype::U8;
        let found = of(&types).expect("scales").swap_remove(concat).expect("it is u8");
        let mut distinct = found.clone();
        distinct.dedup();
        assert_eq!((found.len(), distinct.len()), (256, 4), "{distinct:?}");
        // What a pool reads would have no scale.
        let pool = graph.steps.iter().find(|step| step.problem.as_pool().is_ok()).expect("a pool");
        let mut types = all_f32;
        types[pool.dst[0].tensor] = Dtype::U8;
        let error = of(&types).expect_err("its source is the block's input").to_string();
        assert!(error.contains("has no range"), "{error}");
    }

    #[test]
    fn a_convolution_before_its_mean_is_over_the_scale_of_the_mean_and_never_u8() {
        let graph = graph(BlockVariant { conv_before_pool: true, fuse_siblings: false });
        let calibration = calibration(&graph);
        let pool = graph.steps.iter().find(|step| step.problem.as_pool().is_ok()).expect("a pool");
        let mut types = vec![Dtype::F32; graph.tensors.len()];
        types[pool.dst[0].tensor] = Dtype::U8;
        let found = scales(&graph, &types, Some(&calibration)).expect("scales");
        let scale = calibration.ranges["mixed0.branch_pool"][0] / 255.0;
        assert_eq!(found[pool.src.tensor], Some(vec![scale; 32]));
        types[pool.src.tensor] = Dtype::U8;
        let error = scales(&graph, &types, Some(&calibration)).expect_err("sums without ReLU");
        assert_eq!(error, ScaleError::Negative { layer: "mixed0.branch_pool".to_string() });
    }

    #[test]
    fn a_range_that_is_missing_is_named() {
        let graph = graph(BlockVariant::PLAIN);
        let types = vec![Dtype::U8; graph.tensors.len()];
        let mut types = types;
        types[0] = Dtype::F32;
        let pool = graph.steps.iter().find(|step| step.problem.as_pool().is_ok()).expect("a pool");
        types[pool.dst[0].tensor] = Dtype::F32;
        let mut calibration = calibration(&graph);
        assert!(scales(&graph, &types, Some(&calibration)).is_ok());
        let of_one = |range: f32| [[255.0].repeat(95), vec![range]].concat();
        for ranges in [None, Some(of_one(0.0)), Some(of_one(f32::NAN)), Some(vec![255.0])] {
            calibration.ranges.remove("mixed0.branch3x3dbl_2");
            calibration.ranges.extend(ranges.map(|ranges| ("mixed0.branch3x3dbl_2".to_string(), ranges)));
            let error = scales(&graph, &types, Some(&calibration)).expect_err("no range").to_string();
            assert!(error.contains("mixed0.branch3x3dbl_2"), "{error}");
        }
        assert!(scales(&graph, &types, None).is_err());
    }
}
