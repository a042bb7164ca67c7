//! Warnings after tuning, on standard error.

use engine::plan::{Noise, Plan};

use crate::bench::POLICY;
use crate::cli::messages;
use crate::report::{count, more, percent, time_text};

/// Warns of rounds whose times say little about quiet ones.
pub fn warn_of_noise(noise: &Noise) {
    let busy = POLICY.contention.busy_share;
    let mut causes = Vec::new();
    let shares = [Some(noise.disturbed), noise.disturbed_networks].into_iter().flatten();
    let disturbed = shares.fold(0.0, f64::max);
    if disturbed > busy {
        causes.push(format!("others disturbed up to {} of the runs", percent(disturbed, 1.0)));
    }
    if let Some(load) = noise.load.filter(|load| load.meanwhile() > busy) {
        let used = load.meanwhile() * load.cores as f64;
        causes.push(format!("others used {used:.1} of {}", count(load.cores, "core")));
    }
    if noise.steal_share > busy {
        causes.push(format!("the host gave {} of the time to others", percent(noise.steal_share, 1.0)));
    }
    if let Some(distance) = noise.core_distance {
        let mut latencies = Vec::new();
        if distance.far > busy {
            let (most, share) = (distance.most_ns, distance.far * 100.0);
            latencies.push(format!("up to {most:.0} ns in {share:.0}% of the rounds"));
        }
        latencies.extend(distance.far_networks_ns().map(|ns| format!("{ns:.0} ns beside whole networks")));
        if !latencies.is_empty() {
            let (latencies, near) = (latencies.join(", "), distance.near_ns);
            causes.push(format!("core-to-core latency was {latencies}, at best {near:.0} ns"));
        }
    }
    if !causes.is_empty() {
        let causes = causes.join("; ");
        messages::warning(format!("the machine was not quiet: {causes}; tune again when it is"));
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
    messages::warning(format!(
        "the network takes {takes}, predicted were {expected}, {off}; furthest off: {list}"
    ));
}
