//! Names of layers: those of the plan, of torchvision and of Keras.

use engine::network::model::Op;
use engine::util::files::one_line;
use engine::util::names;
use engine::{Model, Plan};
use kernels::Conv;

/// Names that are offered instead of one that is not there.
const OFFERED: usize = 16;

/// The layer of a plan that has a name.
pub fn resolve(plan: &Plan, wanted: &str) -> Option<String> {
    let is_there = |layer: &str| plan.steps.iter().any(|step| step.layers.iter().any(|name| name == layer));
    if is_there(wanted) {
        return Some(wanted.to_string());
    }
    // The layers of a list are shapes, which have several spellings.
    if let Some(shape) =
        wanted.parse().ok().map(|conv: Conv| conv.to_string()).filter(|shape| is_there(shape))
    {
        return Some(shape);
    }
    let bare = wanted.trim_end_matches(".conv");
    let foreign = foreign(plan).into_iter();
    foreign.filter(|(name, _)| name == bare).map(|(_, layer)| layer).find(|layer| is_there(layer))
}

/// torchvision's and Keras's names of convolutions, each with the plan's.
fn foreign(plan: &Plan) -> Vec<(String, String)> {
    let shape = plan.shape.as_ref().and_then(|shape| shape.parse().ok());
    let Ok(model) = Model::by_name(&plan.model, shape.as_ref(), None) else { return Vec::new() };
    let mut names = Vec::new();
    for node in &model.nodes {
        let Op::Conv(conv) = &node.op else { continue };
        let keras = match conv.index {
            0 => "conv2d".to_string(),
            index => format!("conv2d_{index}"),
        };
        names.extend([conv.torch.clone(), keras].map(|name| (name, node.name.clone())));
    }
    names
}

/// Names to try instead: those that contain it, else the nearest, else those of its block.
pub fn nearest(plan: &Plan, wanted: &str) -> String {
    let all: Vec<&str> = plan.steps.iter().flat_map(|step| &step.layers).map(String::as_str).collect();
    let block = wanted.split('.').next().unwrap_or(wanted);
    let like = |is_like: &dyn Fn(&str) -> bool| {
        let names = all.iter().copied().filter(|name| is_like(name)).take(OFFERED).collect::<Vec<_>>();
        (!names.is_empty()).then(|| one_line(&format!("one of {}", names.join(" "))))
    };
    let shape = || {
        let shape = wanted.parse::<Conv>().ok()?.to_string();
        let nearest = names::closest(&shape, all.iter().copied().filter(|_| plan.is_of_list()))?;
        Some(format!("{}, which is the nearest", one_line(nearest)))
    };
    let containing = || like(&|name| !wanted.is_empty() && name.contains(wanted));
    let inside = || like(&|name| name.split('.').next() == Some(block));
    let typo = || {
        let foreign = foreign(plan).into_iter().map(|(name, _)| name);
        let names: Vec<String> = all.iter().map(|name| name.to_string()).chain(foreign).collect();
        let nearest = names::nearest(wanted, names.iter().map(String::as_str))?;
        Some(one_line(&format!("{nearest}, which is the nearest")))
    };
    let first = || match all.first() {
        Some(name) => one_line(&format!("a name like {name}")),
        None => "a plan with steps".to_string(),
    };
    shape().or_else(containing).or_else(typo).or_else(inside).unwrap_or_else(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::plan;

    #[test]
    fn a_typo_gets_the_nearest_name() {
        assert_eq!(nearest(&plan(), "mixd0.branch1x1"), "mixed0.branch1x1, which is the nearest");
        assert!(nearest(&plan(), "mixed0.other").starts_with("one of mixed0.branch1x1 "));
        assert!(nearest(&plan(), "Mixed_5b.branch1x2").starts_with("Mixed_5b."));
    }
}
