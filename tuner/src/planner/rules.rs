//! Rules by which others choose an algorithm without measuring it, over the kernels here.
//!
//! A rule says which algorithm and, where it has an opinion, which size of tile; of the tunings
//! that leaves, it is given the fastest that was measured, so that its regret is that of the rule
//! and not of our defaults. Only the first match takes defaults.

use engine::network::{Choice, Graph, Step, default_choice};
use engine::plan::RuleRecord;
use kernels::{Conv, Problem};

use crate::measure::{CandidateResult, ProblemResult, of_step};
use crate::planner::context::Network;
use crate::planner::ranking::{is_eligible, is_f32, winner};

/// For every step what a rule takes, in f32; the winner where it says nothing.
pub fn by_rule(network: &Network, rule: &Rule) -> Vec<Choice> {
    let choose = |step: &Step| {
        let measurement = of_step(network.measurements, step);
        let any = || winner(measurement?, |c| is_f32(c) && is_eligible(c));
        let own = measurement.and_then(|measured| rule.pick(measured, is_f32)).or_else(any);
        own.map_or_else(|| default_choice(&step.problem, network.cpu), |won| won.choice.clone())
    };
    network.graph.steps.iter().map(choose).collect()
}

pub struct Rule {
    pub name: &'static str,
    pub description: &'static str,
    pick: for<'a> fn(&Conv, &Candidates<'a>) -> Option<&'a CandidateResult>,
}

pub const RULES: [Rule; 6] = [
    Rule {
        name: "first match",
        description: "the first kernel of the table that takes the shape, by its default tuning: lists of \
               implementations in a fixed order, as in oneDNN",
        pick: |_, candidates| candidates.0.first().copied(),
    },
    Rule {
        name: "op count",
        description: "square kernels by the Winograd tile with the least cost in operations, pointwise by Strassen: \
               ConvolutionWinograd::bestWinogradUnit of MNN",
        pick: op_count,
    },
    Rule {
        name: "winograd if valid",
        description: "Winograd wherever it is valid and there are at least 16 channels, else GEMM: \
               CpuConv2d::get_convolution_method of Arm Compute Library",
        pick: |conv, candidates| {
            let is_fast = |c: &CandidateResult| FAST.contains(&c.choice.row.family);
            let fast = if conv.channels < 16 { None } else { candidates.fastest(is_fast) };
            fast.or_else(|| gemm(conv, candidates))
        },
    },
    Rule {
        name: "channel rule",
        description: "3x3 of stride 1 by F(6x6) up to 32 channels in and out and by F(4x4) above, others by GEMM from 17 \
               channels in or out: Convolution_x86::create_pipeline of ncnn",
        pick: channel_rule,
    },
    Rule {
        name: "direct always",
        description: "the direct kernel for every shape",
        pick: |_, candidates| candidates.fastest(is_direct),
    },
    Rule {
        name: "gemm always",
        description: "patches and the gemm crate for every shape, pointwise in place where that is faster",
        pick: gemm,
    },
];

const FAST: [&str; 2] = ["winograd", "separable"];

/// Candidates of one problem and one pair of types, in the order they were tried: defaults first.
struct Candidates<'a>(Vec<&'a CandidateResult>);

impl<'a> Candidates<'a> {
    fn fastest(&self, admits: impl Fn(&CandidateResult) -> bool) -> Option<&'a CandidateResult> {
        let own = self.0.iter().copied().filter(|c| admits(c));
        own.min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
    }

    fn winograd(&self, m: usize) -> Option<&'a CandidateResult> {
        self.fastest(|c| c.choice.row.family == "winograd" && c.choice.tuning.get("m") == m)
    }
}

impl Rule {
    /// What the rule takes for a problem, of the measured candidates that `admits` lets in; the
    /// fastest direct one where its own choice is not among them. None where there is none, for
    /// what is no convolution, and where types below f32 are measured too.
    pub fn pick<'a>(
        &self,
        measurement: &'a ProblemResult,
        admits: impl Fn(&CandidateResult) -> bool,
    ) -> Option<&'a CandidateResult> {
        let Problem::Conv(conv) = &measurement.problem else { return None };
        // Where lower types are measured, f32 is not searched for its own sake.
        if measurement.candidates.iter().any(|c| !is_f32(c)) {
            return None;
        }
        let timed = measurement.candidates.iter().filter(|c| c.timing().is_some() && admits(c));
        let candidates = Candidates(timed.collect());
        (self.pick)(conv, &candidates).or_else(|| candidates.fastest(is_direct))
    }
}

/// What the rules cost on the convolutions of a network, by isolated times, in f32.
pub fn costs(problems: &[(&ProblemResult, usize)]) -> Vec<RuleRecord> {
    let cost = |rule: &Rule| {
        let mut record = RuleRecord {
            rule: rule.name.to_string(),
            description: rule.description.to_string(),
            isolated_us: 0.0,
            fastest_us: 0.0,
        };
        for (measurement, count) in problems {
            let own = rule.pick(measurement, is_f32);
            let fastest = measurement.ranking().into_iter().find(|c| is_f32(c) && is_eligible(c));
            if let (Some(own), Some(fastest)) = (own, fastest) {
                record.isolated_us += own.seconds() * 1e6 * *count as f64;
                record.fastest_us += fastest.seconds() * 1e6 * *count as f64;
            }
        }
        record
    };
    RULES.iter().map(cost).collect()
}

/// The measurements of a graph's problems, with how many steps have each.
pub fn counted<'a>(graph: &Graph, measurements: &'a [ProblemResult]) -> Vec<(&'a ProblemResult, usize)> {
    let count = |m: &ProblemResult| graph.steps.iter().filter(|step| step.problem == m.problem).count();
    measurements.iter().map(|m| (m, count(m))).filter(|(_, count)| *count > 0).collect()
}

fn is_direct(candidate: &CandidateResult) -> bool {
    ["direct", "direct_bf16", "amx_bf16"].contains(&candidate.choice.row.family)
}

/// A pointwise convolution is a product as it is.
fn gemm<'a>(conv: &Conv, candidates: &Candidates<'a>) -> Option<&'a CandidateResult> {
    let is_im2col = |c: &CandidateResult| ["im2col", "im2col_gemm"].contains(&c.choice.row.family);
    candidates.fastest(|c| is_im2col(c) || conv.is_pointwise() && is_direct(c))
}

fn channel_rule<'a>(conv: &Conv, candidates: &Candidates<'a>) -> Option<&'a CandidateResult> {
    let most = conv.channels.max(conv.filters());
    if (conv.window.kernel, conv.window.stride) == ([3, 3], [1, 1]) && most > 8 {
        let own = candidates.winograd(if most <= 32 { 6 } else { 4 });
        return own.or_else(|| candidates.fastest(|c| c.choice.row.family == "winograd"));
    }
    if most > 16 { gemm(conv, candidates) } else { candidates.fastest(is_direct) }
}

fn op_count<'a>(conv: &Conv, candidates: &Candidates<'a>) -> Option<&'a CandidateResult> {
    if conv.is_pointwise() {
        return candidates.fastest(|c| c.choice.row.family == "strassen");
    }
    let [r, s] = conv.window.kernel;
    if r != s || conv.window.stride != [1, 1] {
        return None;
    }
    let [oh, ow] = conv.output();
    let [taps, channels, filters] = [r, conv.channels, conv.filters()].map(|n| n as f64);
    let direct = (oh * ow) as f64 * channels * filters * taps * taps;
    // Of a tile of m x m outputs: how many times less it costs, less what larger ones lose.
    let gain = |m: usize| {
        let (own, side) = (m as f64, m as f64 + taps - 1.0);
        let tile =
            2.0 * side * side * channels + side * side * channels * filters + (side + own) * own * filters;
        let tiles = (oh.div_ceil(m) * ow.div_ceil(m)) as f64;
        direct / (tile * tiles) - 0.12 * side * side / (taps * taps)
    };
    let sizes = (2..=8).filter_map(|m| Some((gain(m), candidates.winograd(m)?)));
    let best = sizes.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(gain, _)| *gain >= 1.0).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use kernels::{Formats, Tuning};

    use super::*;

    fn measured(id: &str, m: Option<usize>, seconds: f64) -> CandidateResult {
        let tuning = m.map_or_else(Tuning::default, |m| Tuning::new([("m", m)]));
        CandidateResult::taking(seconds, id, Formats::F32, tuning)
    }

    /// What each rule takes for a shape.
    fn picks(shape: &str) -> Vec<(String, Option<usize>)> {
        let mut candidates = vec![measured("direct_plain", None, 5.0)];
        candidates.extend([2, 4, 6].map(|m| measured("winograd_plain", Some(m), 1.0 + m as f64)));
        candidates.push(measured("separable_plain", Some(3), 4.0));
        candidates.push(measured("strassen_plain", None, 6.0));
        candidates.push(measured("im2col_gemm", None, 9.0));
        let conv: Conv = shape.parse().expect("a shape");
        let taken = |c: &CandidateResult| match c.choice.row.family {
            "winograd" => conv.window.kernel == [3, 3],
            "separable" => conv.window.kernel == [1, 7],
            "strassen" => conv.window.kernel == [1, 1],
            _ => true,
        };
        candidates.retain(taken);
        let problem = Problem::Conv(conv.clone());
        let measurement = ProblemResult::of(problem, candidates);
        let pick = |rule: &Rule| {
            let c = rule.pick(&measurement, |_| true).expect("a candidate");
            let m = c.choice.tuning.iter().find(|(name, _)| *name == "m").map(|(_, m)| m);
            (c.choice.row.family.to_string(), m)
        };
        RULES.iter().map(pick).collect()
    }

    #[test]
    fn each_rule_takes_what_its_library_would() {
        let of = |family: &str, m| (family.to_string(), m);
        let direct = of("direct", None);
        let gemm = of("im2col_gemm", None);
        let winograd = |m| of("winograd", Some(m));
        let large = picks("n1h35w35c64k96r3s3");
        assert_eq!(large[..4], [direct.clone(), winograd(6), winograd(2), winograd(4)]);
        assert_eq!(large[4..], [direct.clone(), gemm.clone()]);
        assert_eq!(picks("n1h147w147c32k32r3s3")[3], winograd(6));
        let wide = picks("n1h17w17c128k128r1s7");
        let separable = of("separable", Some(3));
        assert_eq!(
            wide,
            [direct.clone(), direct.clone(), separable, gemm.clone(), direct.clone(), gemm.clone()]
        );
        let pointwise = picks("n1h17w17c768k192r1s1");
        assert_eq!(pointwise[1], of("strassen", None));
        assert_eq!(pointwise[5], direct);
        assert_eq!(picks("n1h299w299c3k8r3s3u2")[3], direct);
        assert_eq!(picks("n1h35w35c288k384r3s3u2")[2], winograd(2));
    }

    #[test]
    fn what_is_not_admitted_is_not_taken() {
        let conv: Conv = "n1h17w17c128k128r3s3".parse().expect("a shape");
        let candidates = vec![measured("direct_plain", None, 1.0), measured("im2col_gemm", None, 2.0)];
        let problem = Problem::Conv(conv);
        let measurement = ProblemResult::of(problem, candidates);
        for rule in &RULES {
            assert!(rule.pick(&measurement, |_| false).is_none());
            assert!(rule.pick(&measurement, |c| c.choice.row.family == "direct").is_some(), "{}", rule.name);
        }
    }
}
