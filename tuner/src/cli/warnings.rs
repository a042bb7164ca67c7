//! Warnings after tuning, on standard error.

use engine::plan::{Noise, Plan};

use crate::bench::POLICY;
use crate::bench::noise::is_busy;
use crate::report::{count, more, percent, time_text};

/// What to do where the machine was not quiet.
const AGAIN: &str = "tune again when it is quiet; --fresh is not needed";

/// Warns of rounds whose times say little about quiet ones.
pub fn warn_of_noise(noise: &Noise) {
    let busy = POLICY.contention.busy_share;
    let warn = |text: String| eprintln!("warning: {text}; {AGAIN}");
    if is_busy(noise) {
        let shares = [Some(noise.disturbed), noise.disturbed_networks].into_iter().flatten();
        let disturbed = percent(shares.fold(0.0, f64::max), 1.0);
        let load = noise.load.map_or(String::new(), |load| {
            let used = load.meanwhile() * load.cores as f64;
            format!(", and used up to {used:.1} of {}", count(load.cores, "core"))
        });
        warn(format!("busy: other processes disturbed up to {disturbed} of the runs{load}"));
    }
    let Some(distance) = noise.core_distance else { return };
    let best = format!("at best {:.0} ns", distance.near_ns);
    let warn_of_latency = |text: String| warn(format!("core-to-core latency: {text}, {best}"));
    if distance.far > busy {
        let (most, share) = (distance.most_ns, distance.far * 100.0);
        warn_of_latency(format!("up to {most:.0} ns in {share:.0}% of the rounds"));
    }
    if let Some(ns) = distance.far_networks_ns() {
        warn_of_latency(format!("{ns:.0} ns while whole networks were measured"));
    }
}

/// Warns of a network whose time is not as predicted, and names the steps that are furthest off.
pub fn audit(plan: &Plan) {
    let (Some(predicted), Some(measured)) = (plan.predicted_ms, plan.measured_ms) else { return };
    if (measured / predicted - 1.0).abs() <= POLICY.stages.prediction_off {
        return;
    }
    let residuals = plan.steps.iter().filter_map(|step| Some((step.residual_us()?, &step.layers[0])));
    let mut residuals: Vec<(f64, &String)> = residuals.collect();
    residuals.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
    let list = residuals.iter().take(3).map(|(us, layer)| format!("{layer} {us:+.0} µs"));
    let list = list.collect::<Vec<_>>().join(", ");
    let [takes, expected] = [measured, predicted].map(|ms| time_text(ms * 1e3));
    let off = more(measured / predicted);
    eprintln!("warning: the network takes {takes}, predicted were {expected}, {off}; furthest off: {list}");
}
