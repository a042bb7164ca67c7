//! Ranges of activations for plans with u8.

use engine::PlanError;
use engine::network::{Calibration, Graph, Precision, lowest_choices};
use engine::runtime::weight_cache::fingerprint;
use engine::runtime::{Outputs, PreparedNetwork, RangeRule, Reference};
use engine::weights::Weights;

use crate::autotune::error::TuneError;
use crate::autotune::setup::Setup;

/// Ranges by the rule with the least error of the features, of a network that is in u8 wherever it
/// can be, on the images of the reference; none where no tensor may be u8.
pub fn calibration(
    setup: &Setup,
    graph: &Graph,
    weights: &Weights,
    reference: &Reference,
) -> Result<Option<Calibration>, TuneError> {
    if setup.precision != Precision::Int8 {
        return Ok(None);
    }
    let (threads, cpu) = (&setup.threads, &setup.options.cpu);
    threads.install(|| {
        let outputs = Outputs::of(graph, weights, cpu, threads, reference.images())?;
        let Some(choices) = lowest_choices(graph, cpu, setup.precision) else { return Ok(None) };
        let mut best: Option<Calibration> = None;
        for rule in RangeRule::all() {
            let ranges = outputs.ranges(rule);
            let mut network =
                PreparedNetwork::new(graph.clone(), &choices, Some(&ranges), weights, cpu, threads)?;
            let (rel_error, _) = reference.error(&mut network, threads);
            if best.as_ref().is_none_or(|best| rel_error < best.rel_error) {
                best = Some(Calibration { rel_error, ..ranges });
            }
        }
        let given_images = !setup.options.images.is_empty();
        let read = |source| PlanError::Read { file: weights.description(), source };
        let (images, weights) = (reference.images().len(), fingerprint(weights).map_err(read)?.to_string());
        Ok(best.map(|best| Calibration { weights, given_images, images, ..best }))
    })
}
