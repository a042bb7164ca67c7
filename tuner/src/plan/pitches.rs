//! How far apart the pixels of tensors lie in a plan.

use std::path::Path;

use kernels::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::{Plan, PlanError, field};
use crate::graph::{Graph, Pitches};
use crate::session::pixel_pitch;

/// From a pixel of a tensor to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorPitch {
    /// The first layer that writes it.
    pub of: String,
    /// Its channels.
    pub channels: usize,
    /// Elements from pixel to pixel.
    pub pixel_pitch: usize,
    /// What the rule says.
    pub rule: usize,
    /// How many times as long as with the rule's its readers and writers take with the other, and the 95% interval.
    pub versus: [f64; 3],
}

impl std::fmt::Display for TensorPitch {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { of, channels, pixel_pitch, rule, versus: [value, low, high] } = self;
        let by = if pixel_pitch == rule { "by rule" } else { "against the rule" };
        write!(
            f,
            "{channels} channels every {pixel_pitch} elements from {of} on, {by}; the other way {value:.3} ({low:.3} .. {high:.3}) of the rule's time"
        )
    }
}

impl Plan {
    /// The distances that the plan says.
    ///
    /// # Errors
    /// Names the first field that does not hold.
    pub(super) fn pitched(&self, path: &Path, graph: Graph, types: &[Dtype]) -> Result<Graph, PlanError> {
        let mut pitches = graph.pitches.clone();
        for (index, planned) in self.pitches.iter().enumerate() {
            let at = |name: &str| format!("pitches[{index}].{name}");
            let mut written = graph.steps.iter().flat_map(|step| step.layers.iter().zip(&step.dst));
            let Some((_, dst)) = written.find(|(layer, _)| **layer == planned.of) else {
                return Err(field(path, &at("of"), &planned.of, format!("a layer of {}", self.model)));
            };
            if pitches[dst.tensor] != Pitches::ByRule {
                return Err(field(path, &at("of"), &planned.of, "each tensor once"));
            }
            let (channels, dtype) = (graph.tensors[dst.tensor].c, types[dst.tensor]);
            if planned.channels != channels {
                return Err(field(path, &at("channels"), planned.channels, channels));
            }
            let ways = [Pitches::Dense, Pitches::Padded];
            let same = |way: &Pitches| pixel_pitch(channels, dtype, *way) == planned.pixel_pitch;
            let Some(way) = ways.into_iter().find(same) else {
                let [dense, padded] = ways.map(|way| pixel_pitch(channels, dtype, way));
                return Err(field(
                    path,
                    &at("pixel_pitch"),
                    planned.pixel_pitch,
                    format!("{dense} or {padded}"),
                ));
            };
            pitches[dst.tensor] = way;
        }
        Ok(Graph { pitches, ..graph })
    }
}
