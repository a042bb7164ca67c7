//! Warnings after tuning, on standard error.

use engine::plan::records::Noise;
use engine::plan::schema::Plan;

use crate::bench::policy::POLICY;
use crate::report::text::{more, time_text};

/// What to do where the machine was not quiet.
const AGAIN: &str = "tune again when it is quiet; --fresh is not needed";

/// Warns of rounds whose times say little about quiet ones.
pub fn warn_of_noise(noise: &Noise) {
    if noise.disturbed > POLICY.contention.busy_share {
        let share = noise.disturbed * 100.0;
        eprintln!("warning: busy: other processes had the cores in {share:.0}% of the runs; {AGAIN}");
    }
    let Some(distance) = noise.core_distance else { return };
    let (near, most, share) = (distance.near_ns, distance.most_ns, distance.far * 100.0);
    if distance.far > POLICY.contention.busy_share {
        eprintln!(
            "warning: core-to-core latency: up to {most:.0} ns in {share:.0}% of the rounds, at best {near:.0} ns; {AGAIN}"
        );
    }
    if let Some(ns) = distance.far_networks_ns() {
        eprintln!(
            "warning: core-to-core latency: {ns:.0} ns while whole networks were measured, at best {near:.0} ns; {AGAIN}"
        );
    }
}

/// Warns of a whole network that takes longer or shorter than predicted, and names the steps that are furthest off.
pub fn audit(plan: &Plan) {
    let (Some(predicted), Some(measured)) = (plan.predicted_ms, plan.measured_ms) else { return };
    if (measured / predicted - 1.0).abs() <= POLICY.stages.prediction_off {
        return;
    }
    let mut residuals: Vec<(f64, &str)> =
        plan.steps.iter().filter_map(|step| Some((step.residual_us()?, &step.layers[0][..]))).collect();
    residuals.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
    let list: Vec<String> =
        residuals.iter().take(3).map(|(us, layer)| format!("{layer} {us:+.0} µs")).collect();
    eprintln!(
        "warning: the network takes {}, predicted were {}, {}; furthest off: {}",
        time_text(measured * 1e3),
        time_text(predicted * 1e3),
        more(measured / predicted),
        list.join(", ")
    );
}
