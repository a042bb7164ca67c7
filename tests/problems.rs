//! The list of problems that the benches read is that of the model.

use engine::network::{Graph, Model};
use kernels::{PoolKind, Problem};

#[test]
fn the_benches_list_every_convolution_of_inception_v3() {
    let listed = include_str!("../kernels/benches/inception_v3.txt");
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    let graph = Graph::new(&Model::inception_v3().with_classes(None), 1, PoolKind::Average);
    let problems = graph.problems();
    let convs = problems.iter().filter(|(problem, _)| matches!(problem, Problem::Conv(_)));
    let lines: Vec<String> = convs
        .map(|(problem, steps)| {
            let shape = problem.to_string();
            format!("{shape:<32} *{:<2} # {}", steps.len(), graph.steps[steps[0]].layers[0])
        })
        .collect();
    assert_eq!(listed, lines, "expected:\n{}\n", lines.join("\n"));
}
