//! What a step reads and writes, and what it executes in its time.

use engine::plan::PlanStep;
use kernels::{Conv, entry};
use serde_json::Value;

use crate::report::data::{StepView, convolution};

/// A convolution step of a roofline. Rates are in G operations a second; a multiply-add is two.
pub struct Work<'a> {
    pub view: &'a StepView<'a>,
    /// MiB of source, destination and packed weights.
    pub mib: [f64; 3],
    /// Operations of the direct computation over all these bytes.
    pub intensity: f64,
    /// Operations of the direct computation over the time.
    pub effective: f64,
    /// Those that the kernel executes, over the time; the same where the plan does not say.
    pub executed: f64,
}

/// The convolution steps whose time is known.
pub fn works<'a>(steps: &'a [StepView<'a>]) -> Vec<Work<'a>> {
    steps.iter().filter_map(work).collect()
}

fn work<'a>(view: &'a StepView<'a>) -> Option<Work<'a>> {
    let (conv, time) = (convolution(&view.step.problem)?, view.time?);
    let runs = view.step.repeats.max(1) as f64;
    let bytes = bytes(&conv, view.step);
    let direct = 2.0 * conv.multiply_adds() as f64;
    let of_step = |operations: f64| operations / time.median / 1e3;
    let executed = view.step.multiply_adds.filter(|n| *n > 0).map(|n| of_step(2.0 * n as f64));
    let effective = of_step(direct * runs);
    Some(Work {
        view,
        mib: bytes.map(|bytes| bytes / f64::from(1 << 20)),
        intensity: direct / bytes.iter().sum::<f64>(),
        effective,
        executed: executed.unwrap_or(effective),
    })
}

/// Bytes of source, destination and packed weights of one run.
fn bytes(conv: &Conv, step: &PlanStep) -> [f64; 3] {
    let ([h, w], [oh, ow]) = (conv.image, conv.output());
    let (src, dst) = step.formats.each_type();
    let pixels = [h * w * conv.channels, oh * ow * conv.filters()].map(|n| (n * conv.batch) as f64);
    [pixels[0] * size(src), pixels[1] * size(dst), packed_bytes(conv, step)]
}

/// Bytes of an element of a type.
fn size(dtype: &str) -> f64 {
    match dtype {
        "u8" => 1.0,
        "bf16" => 2.0,
        _ => 4.0,
    }
}

/// Bytes of packed weights, but for their padding to whole vectors. Winograd's kernels keep them
/// transformed, `m + r - 1` values for `r`, Strassen's 7 quarters for 4 a level.
fn packed_bytes(conv: &Conv, step: &PlanStep) -> f64 {
    let tuning = |name: &str| step.tuning.get(name).and_then(Value::as_u64).map(|value| value as f64);
    let [rows, columns] = conv.window.kernel.map(|side| side as f64);
    let [longer, shorter] = [rows.max(columns), rows.min(columns)];
    let family = entry(&step.kernel).map_or("", |row| row.family);
    let taps = match (tuning("m"), tuning("levels")) {
        (Some(m), _) if family.starts_with("winograd") => (m + rows - 1.0) * (m + columns - 1.0),
        (Some(m), _) if family.starts_with("separable") => (m + longer - 1.0) * shorter,
        (_, Some(levels)) if family == "strassen" => 1.75f64.powf(levels.min(8.0)) * rows * columns,
        _ => rows * columns,
    };
    taps * (conv.channels * conv.filters()) as f64 * weight_size(&step.kernel)
}

/// Bytes of a packed weight. Without instructions for 8 bits, those of 16 multiply them.
fn weight_size(kernel: &str) -> f64 {
    let is_widened = || entry(kernel).and_then(|row| row.tier).is_some_and(|tier| tier.is_of_f32());
    match kernel {
        k if k.contains("_int8") => {
            if is_widened() {
                2.0
            } else {
                1.0
            }
        }
        k if k.contains("_int16") || k.contains("_bf16") => 2.0,
        _ => 4.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(kernel: &str, tuning: Value, types: [&str; 2]) -> PlanStep {
        serde_json::from_value(json!({
            "layers": ["a"], "problem": "", "kernel": kernel, "tuning": tuning, "threads": 1,
            "formats": { "in": format!("{}:nhwc", types[0]), "out": format!("{}:nhwc", types[1]) },
            "time_us": null, "reason": "only",
        }))
        .expect("a step")
    }

    #[test]
    fn bytes_are_those_of_the_types_and_of_transformed_weights() {
        let conv = convolution("n2h8w8c32k64r3s3").expect("a convolution");
        let of = |kernel: &str, tuning, types| bytes(&conv, &step(kernel, tuning, types));
        let [src, dst, filter] = [2 * 64 * 32, 2 * 64 * 64, 9 * 32 * 64].map(f64::from);
        assert_eq!(of("direct_avx512", json!({}), ["f32"; 2]), [4.0 * src, 4.0 * dst, 4.0 * filter]);
        assert_eq!(of("direct_int8_avx512vnni", json!({}), ["u8", "bf16"]), [src, 2.0 * dst, filter]);
        let [.., packed] = of("winograd_int16_avx512vnni", json!({ "m": 4 }), ["u8"; 2]);
        assert_eq!(packed, 2.0 * 36.0 * 32.0 * 64.0);
        let [.., packed] = of("separable_avx512", json!({ "m": 4 }), ["f32"; 2]);
        assert_eq!(packed, 4.0 * 18.0 * 32.0 * 64.0);
    }
}
