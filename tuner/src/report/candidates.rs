//! The table of a problem's candidates, and what stands below it.

use engine::network::{StepFormats, tuning_text};
use engine::plan::{CandidateRecord, ConditionsRecord, ProblemRecord, SearchRecord};
use kernels::Conv;

use crate::report::data::{candidate_time, convolution};
use crate::report::table::Table;
use crate::report::text::{RUNS, count, quartiles, short};

/// Candidates of a problem, the fastest first.
pub struct Candidates<'a> {
    pub record: &'a ProblemRecord,
    pub threads: usize,
    /// Which are shown, by their numbers.
    pub is_shown: &'a dyn Fn(usize) -> bool,
    /// What stands before a candidate.
    pub mark: &'a dyn Fn(&CandidateRecord) -> &'static str,
    /// The types of the step that they are for, where there is one.
    pub formats: Option<&'a StepFormats>,
}

impl Candidates<'_> {
    pub fn table(&self) -> Table {
        let conv = convolution(&self.record.problem);
        let asks = if self.formats.is_some() { " | (asks)" } else { "" };
        let mut table = Table::new(&format!(
            " | kernel | tuning | (types) | us | vs fastest, 95% | runs | (GFLOP/s) | (of peak) | error | (quartiles) \
             | (saved) | (KiB){asks} | (outcome)"
        ));
        for (index, c) in self.record.candidates.iter().enumerate() {
            if (self.is_shown)(index) {
                self.row(&mut table, conv.as_ref(), c);
            }
        }
        table
    }

    fn row(&self, table: &mut Table, conv: Option<&Conv>, c: &CandidateRecord) {
        let direct = conv.map(|conv| conv.multiply_adds() as f64);
        let (time, executed) = (candidate_time(c), c.multiply_adds as f64);
        let gflops = |multiply_adds: f64| time.map(|t| 2.0 * multiply_adds / t.median / 1e3);
        let peak = self.record.conditions.as_ref().and_then(|conditions| conditions.peak(&c.id.kernel));
        let peak = peak.filter(|_| direct.is_some()).map(|peak| peak * self.threads as f64);
        let share = gflops(executed).zip(peak).map(|(gflops, peak)| format!("{:.0}%", gflops / peak * 100.0));
        let mut cells = vec![
            (self.mark)(c).to_string(),
            c.id.kernel.clone(),
            tuning_text(&c.id.tuning),
            c.id.formats.types(),
            time.map_or(String::new(), |t| short(t.median)),
            c.ratio_ci95.map_or(String::new(), |ratio| ratio_text(ratio, c.samples)),
            c.samples.to_string(),
            gflops(direct.unwrap_or(executed)).map_or(String::new(), short),
            share.unwrap_or_default(),
            format!("{:.1e}", c.rel_error),
            time.map_or(String::new(), |t| quartiles(t, Some(c.samples))),
            direct.map_or(String::new(), |direct| format!("{:.2}x", direct / executed.max(1.0))),
            (c.bytes >> 10).to_string(),
        ];
        cells.extend(self.formats.map(|formats| asked(&c.id.formats, formats)));
        cells.push(c.outcome.to_string());
        table.row(&cells.iter().map(|cell| cell as &dyn std::fmt::Display).collect::<Vec<_>>());
    }

    /// How many are not shown.
    pub fn hidden(&self) -> Option<String> {
        let hidden = (0..self.record.candidates.len()).filter(|index| !(self.is_shown)(*index)).count();
        (hidden > 0).then(|| format!("{} more: --all shows all", count(hidden, "candidate")))
    }

    /// What the cores did meanwhile, and how far the search went.
    pub fn conditions(&self) -> impl Iterator<Item = String> {
        let conditions = self.record.conditions.as_ref();
        let conditions = conditions.map(|conditions| conditions_text(conditions, self.threads));
        conditions.into_iter().chain(self.record.search.as_ref().map(searched))
    }
}

/// What the numbers of the table are.
pub const COLUMNS: &str = "-: fewer than five runs. GFLOP/s count a direct computation's operations; the share of \
                           the peak counts those that the kernel executes, saved is the ratio of the two.";

/// A ratio and its interval; `-` of too few runs.
fn ratio_text([ratio, low, high]: [f64; 3], runs: usize) -> String {
    match runs {
        _ if low == high => format!("{ratio:.2}"),
        runs if runs < RUNS => "-".to_string(),
        _ => format!("{ratio:.2} ({low:.2} .. {high:.2})"),
    }
}

/// What a candidate asks of its neighbours that they do not do in the plan.
fn asked(candidate: &StepFormats, plan: &StepFormats) -> String {
    let [(src, dst), (plan_src, plan_dst)] = [candidate.each_type(), plan.each_type()];
    let before = (src != plan_src).then(|| format!("{src} before"));
    let behind = (dst != plan_dst).then(|| format!("{dst} behind"));
    before.into_iter().chain(behind).collect::<Vec<_>>().join(", ")
}

fn conditions_text(conditions: &ConditionsRecord, threads: usize) -> String {
    let of = |(tier, gflops): (&String, &f64)| format!("{tier} {gflops:.0} GFLOP/s");
    let list: Vec<String> = conditions.peak_gflops.iter().map(of).collect();
    let cores = if threads == 1 { "the core" } else { "each core" };
    let latency =
        conditions.core_to_core_ns.map_or(String::new(), |ns| format!(", {ns:.0} ns from core to core"));
    let (clock, peaks) = (conditions.clock_ghz, list.join(", "));
    format!("Meanwhile {cores} ran at {clock:.2} GHz{latency}; at its peak {peaks}.")
}

fn searched(search: &SearchRecord) -> String {
    let SearchRecord { evaluated, space, regret, best_skipped } = search;
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let regret = regret.map_or(String::new(), |[ratio, low, high]| {
        let [ratio, low, high] = [ratio, low, high].map(percent);
        let had = if *best_skipped { "left out" } else { "tried" };
        format!(
            "; all of them were tried afterwards, and its best is {ratio:.1}% slower than the best \
             ({low:.1} .. {high:.1}), which it had {had}"
        )
    });
    format!("The search has tried {evaluated} of {}{regret}.", count(*space, "tuning"))
}
