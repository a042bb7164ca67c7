//! Chooses a kernel for each step of a graph.

use kernels::cpu::Cpu;
use kernels::kernel::Role;
use kernels::problem::Problem;

use crate::graph::Graph;
use crate::measure::{Measured, Measurement, available};
use crate::session::Choice;

/// Times closer than this are one: the noise of an unloaded machine from run to run.
const TIE: f64 = 0.01;

/// A choice without measurements: of the rows that this machine has, the one with the fewest
/// multiply-adds by its default tuning; the first in the table where several are equal.
///
/// # Panics
/// If no row of the table takes the problem.
pub fn default_choice(problem: &Problem, cpu: &Cpu) -> Choice {
    let (list, _) = available(cpu, problem);
    let tuned = list.iter().filter(|a| a.row.role == Role::Candidate).map(|a| {
        let tuning = a.kernel.tunings(problem).swap_remove(0);
        (a.kernel.multiply_adds(problem, &tuning), Choice { row: a.row, tuning })
    });
    let best = tuned.min_by_key(|(work, _)| *work);
    best.unwrap_or_else(|| panic!("no kernel takes {problem}")).1
}

/// [`default_choice`] for every step.
pub fn default_choices(graph: &Graph, cpu: &Cpu) -> Vec<Choice> {
    graph.steps.iter().map(|step| default_choice(&step.problem, cpu)).collect()
}

/// The winner of a measurement among the candidates that `allowed` admits: the fastest, and of those
/// within a hundredth of it the one with the least memory, then the least error, then the first.
pub fn winner(measurement: &Measurement, allowed: impl Fn(&Measured) -> bool) -> Option<&Measured> {
    let ranking: Vec<&Measured> = measurement.ranking().into_iter().filter(|c| allowed(c)).collect();
    let median = |c: &Measured| c.timing().map_or(f64::INFINITY, |t| t.median);
    let fastest = median(ranking.first()?);
    ranking
        .into_iter()
        .take_while(|c| median(c) <= fastest * (1.0 + TIE))
        .min_by(|a, b| a.bytes().cmp(&b.bytes()).then(a.relative_error.total_cmp(&b.relative_error)))
}

/// Candidates that a plan may use: none that is there only to compare with.
pub fn is_eligible(candidate: &Measured) -> bool {
    candidate.row.role == Role::Candidate
}

/// For every step the winner among the candidates that `allowed` admits, with the measurement it is
/// from; `None` for a step without one.
pub fn winners<'a>(
    graph: &Graph,
    measurements: &'a [Measurement],
    allowed: impl Fn(&Measured) -> bool,
) -> Vec<Option<&'a Measured>> {
    let of = |problem: &Problem| measurements.iter().find(|m| m.problem == *problem);
    graph.steps.iter().map(|step| winner(of(&step.problem)?, &allowed)).collect()
}

/// For every step the best candidate of a family where it has one, of `direct` elsewhere, and the
/// winner where neither has.
pub fn family(graph: &Graph, measurements: &[Measurement], name: &str, cpu: &Cpu) -> (Vec<Choice>, f64) {
    let own = winners(graph, measurements, |c| c.row.family == name);
    let direct = winners(graph, measurements, |c| c.row.family == "direct");
    let any = winners(graph, measurements, is_eligible);
    let mut seconds = 0.0;
    let choose =
        |(index, step): (usize, &crate::graph::Step)| match own[index].or(direct[index]).or(any[index]) {
            Some(c) => {
                seconds += c.timing().map_or(0.0, |t| t.median);
                Choice { row: c.row, tuning: c.tuning.clone() }
            }
            None => default_choice(&step.problem, cpu),
        };
    let choices = graph.steps.iter().enumerate().map(choose).collect();
    (choices, seconds)
}

/// Names of the families with a candidate among measurements, in the order of the table.
pub fn families(measurements: &[Measurement]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for row in kernels::kernel::table() {
        let measured = |m: &Measurement| {
            matches!(m.problem, Problem::Conv(_)) && m.candidates.iter().any(|c| c.row.family == row.family)
        };
        if !names.contains(&row.family) && measurements.iter().any(measured) {
            names.push(row.family);
        }
    }
    names
}
