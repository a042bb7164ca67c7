//! The problems of InceptionV3, small enough to be checked by the oracle.

use engine::network::{Graph, Model, problems};
use kernels::{Conv, Pool, PoolKind, Problem};

use crate::Case;

/// All distinct problems of InceptionV3 with both ends of its head, those of all forms of its
/// blocks, and the average pools of both frameworks, on images of a few pixels. Global pools stay
/// as they are.
pub fn problems_of_inception_v3() -> Vec<Case> {
    let mut distinct: Vec<Problem> = Vec::new();
    for average in [PoolKind::Average, PoolKind::AverageCountingBorder] {
        for (problem, _) in problems(&Graph::new(&Model::inception_v3(), 1, average)) {
            if !distinct.contains(&problem) {
                distinct.push(problem);
            }
        }
    }
    distinct.push(Problem::Sigmoid { batch: 1, channels: 1000 });
    for problem in &mut distinct {
        match problem {
            Problem::Pool(Pool { image, window, .. }) if window.kernel == *image => (),
            Problem::Conv(Conv { image, .. }) | Problem::Pool(Pool { image, .. }) => {
                *image = [image[0].min(9), image[1].min(11)];
            }
            Problem::Softmax { .. } | Problem::Sigmoid { .. } => (),
        }
    }
    distinct.into_iter().map(Case::packed).collect()
}
