//! Plans of which none is both slower and less exact than another: what an error bound costs.

use std::time::Instant;

use engine::network::{Choice, multiply_adds, pair};
use engine::plan::{ParetoPoint, time_us};
use kernels::Dtype;

use crate::bench::POLICY;
use crate::planner::compare::{NetworkTime, compare};
use crate::planner::context::Network;
use crate::planner::error::PlannerError;
use crate::planner::search::Chosen;

/// The plans, the fastest first: chosen by isolated times, run in turn.
pub fn pareto(network: &Network) -> Result<Vec<ParetoPoint>, PlannerError> {
    let mut list = network.frontier(POLICY.pareto.plans)?;
    let sessions = list.iter_mut().map(|chosen| &mut chosen.session).collect();
    let times = compare(network, sessions, Instant::now() + POLICY.pareto.time);
    let point = |(chosen, entry): (&Chosen, &NetworkTime)| {
        let lower = |choice: &&Choice| pair(&choice.formats) != [Dtype::F32; 2];
        ParetoPoint {
            time_us: time_us(&entry.timing),
            rel_error: chosen.error,
            bf16_steps: chosen.choices.iter().filter(lower).count(),
            u8_steps: chosen.choices.iter().filter(|choice| choice.has(Dtype::U8)).count(),
            multiply_adds: multiply_adds(network.graph, &chosen.choices, network.cpu),
        }
    };
    Ok(undominated(list.iter().zip(&times).map(point).collect()))
}

/// Those that no other beats in both time and error, the fastest first.
fn undominated(mut points: Vec<ParetoPoint>) -> Vec<ParetoPoint> {
    points.sort_by(|a, b| a.time_us.median.total_cmp(&b.time_us.median));
    let mut least = f64::INFINITY;
    points.retain(|point| {
        let is_better = point.rel_error < least;
        least = least.min(point.rel_error);
        is_better
    });
    points
}

#[cfg(test)]
mod tests {
    use engine::plan::TimeUs;

    use super::*;

    #[test]
    fn what_another_beats_in_both_is_left_out() {
        let point = |(time, rel_error): (f64, f64)| ParetoPoint {
            time_us: TimeUs { median: time, low: time, high: time },
            rel_error,
            bf16_steps: 0,
            u8_steps: 0,
            multiply_adds: 0,
        };
        let points = [(3.0, 1e-6), (1.0, 1e-2), (2.0, 2e-2), (2.5, 1e-3), (4.0, 1e-6), (5.0, 1e-7)];
        let kept = undominated(points.into_iter().map(point).collect());
        let kept: Vec<(f64, f64)> = kept.iter().map(|p| (p.time_us.median, p.rel_error)).collect();
        assert_eq!(kept, [(1.0, 1e-2), (2.5, 1e-3), (3.0, 1e-6), (5.0, 1e-7)]);
    }
}
