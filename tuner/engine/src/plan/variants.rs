//! The forms of blocks in a plan.

use std::path::Path;

use crate::network::{Block, BlockVariant, Graph, with_variant};
use crate::plan::error::{PlanError, field};
use crate::plan::schema::{Plan, PlanSplit};

impl Plan {
    /// A plain graph with its blocks in the plan's forms.
    pub(super) fn graph(&self, path: &Path, plain: &Graph) -> Result<Graph, PlanError> {
        let mut graph = match &self.split {
            None => plain.clone(),
            Some(split) => self.split_graph(path, plain, split)?,
        };
        let blocks = Block::all(&graph);
        for (index, planned) in self.block_variants.iter().enumerate() {
            let at = |name: &str| format!("block_variants[{index}].{name}");
            if self.block_variants[..index].iter().any(|other| other.block == planned.block) {
                return Err(field(path, &at("block"), &planned.block, "each block once"));
            }
            let Some(block) = blocks.iter().find(|block| block.name == planned.block) else {
                let names: Vec<&str> = blocks.iter().map(|block| block.name).collect();
                let expected = match names.len() {
                    0 => format!("no block variants: {} has none", self.model),
                    _ => format!("one of {}", names.join(" ")),
                };
                return Err(field(path, &at("block"), &planned.block, expected));
            };
            let form = BlockVariant::from_name(&planned.variant)
                .and_then(|form| with_variant(&graph, block.name, form));
            graph = form.ok_or_else(|| {
                let names: Vec<String> = block.forms.iter().map(|(form, _)| form.to_string()).collect();
                field(path, &at("variant"), &planned.variant, format!("one of {}", names.join(" ")))
            })?;
        }
        Ok(graph)
    }

    fn split_graph(&self, path: &Path, plain: &Graph, split: &PlanSplit) -> Result<Graph, PlanError> {
        let names = plain.blocks();
        // Before the first there is nothing to split.
        let later = names.split_first().map_or(&[][..], |(_, later)| later);
        if let Some(before) = split.before.as_deref().filter(|before| !later.contains(before)) {
            let expected = match later {
                [] => format!("null: {} has no block after its first", self.model),
                _ => format!("null or one of {}", later.join(" ")),
            };
            return Err(field(path, "split.before", before, expected));
        }
        if !(1..self.batch).contains(&split.images) {
            let expected = format!("a number from 1 to {}, below the batch", self.batch.saturating_sub(1));
            return Err(field(path, "split.images", split.images, expected));
        }
        let graph = plain.split_before(split.before.as_deref().unwrap_or_default(), split.images);
        Ok(if split.per_worker { graph.per_worker() } else { graph })
    }

    /// ` with mixed0 siblings, mixed4 swap`: the forms that are not plain, in words.
    pub(super) fn in_forms(&self) -> String {
        let others = self.block_variants.iter().filter(|r| r.variant != BlockVariant::PLAIN.to_string());
        let list: Vec<String> = others.map(|r| format!("{} {}", r.block, r.variant)).collect();
        if list.is_empty() { String::new() } else { format!(" with {}", list.join(", ")) }
    }
}
