//! Which of measured candidates is the best.

use engine::network::Step;
use kernels::{Dtype, Role, table};

use crate::measure::{CandidateResult, ProblemResult};

/// The winner among the candidates that `admits` lets in: of those within a tie of the fastest the
/// first by [`by_tie`].
pub fn winner(result: &ProblemResult, admits: impl Fn(&CandidateResult) -> bool) -> Option<&CandidateResult> {
    let list: Vec<&CandidateResult> = result.ranking().into_iter().filter(|c| admits(c)).collect();
    let fastest = list.first()?.seconds();
    list.into_iter().take_while(|c| c.seconds() <= fastest * (1.0 + result.tie)).min_by(|a, b| by_tie(a, b))
}

/// The order of two that are equally fast: by memory, then error, then place in the table.
pub fn by_tie(a: &CandidateResult, b: &CandidateResult) -> std::cmp::Ordering {
    let place = |c: &CandidateResult| table().iter().position(|row| row.id == c.choice.row.id);
    let error = a.checked.rel_error.total_cmp(&b.checked.rel_error);
    a.bytes().cmp(&b.bytes()).then(error).then(place(a).cmp(&place(b)))
}

/// Candidates that a plan may use: none that is there only to compare with.
pub fn is_eligible(candidate: &CandidateResult) -> bool {
    candidate.choice.row.role == Role::Candidate
}

pub fn is_f32(candidate: &CandidateResult) -> bool {
    candidate.types() == [Dtype::F32; 2]
}

/// The types that a step reads and writes, of those of all tensors.
pub fn types_of(step: &Step, tensors: &[Dtype]) -> [Dtype; 2] {
    [tensors[step.src.tensor], tensors[step.dst[0].tensor]]
}
