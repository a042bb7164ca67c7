//! The variants of blocks: what each costs, and what the chosen ones gain.

use std::fmt::Display;

use engine::network::BlockVariant;
use engine::plan::{BlockVariantRecord, VariantReason};
use engine::util::files::one_line;

use crate::report::data::microseconds;
use crate::report::table::Table;
use crate::report::text::{more, paragraphs, short, time_text};

/// A block as cells: microseconds of its variants in the order of [`BlockVariant::ALL`], empty
/// where it has none, the name of the chosen one, and what that takes more than the plain one.
pub fn cells(block: &BlockVariantRecord) -> Vec<String> {
    let cost = |variant: BlockVariant| {
        let known = block.alternatives.iter().find(|a| BlockVariant::from_name(&a.variant) == Some(variant));
        known.and_then(|a| microseconds(a.time_us)).map_or(String::new(), short)
    };
    let chosen = BlockVariant::from_name(&block.variant).map_or(block.variant.clone(), name);
    let takes = gain(block).map(|[plain, chosen]| more(chosen / plain)).unwrap_or_default();
    [block.block.clone()].into_iter().chain(BlockVariant::ALL.map(cost)).chain([chosen, takes]).collect()
}

/// Microseconds of the plain form and of the chosen one.
fn gain(block: &BlockVariantRecord) -> Option<[f64; 2]> {
    let [plain, chosen] = block.gain_us()?;
    Some([microseconds(Some(plain))?, microseconds(Some(chosen))?])
}

/// What heads [`cells`], as [`Table::new`] takes it.
pub fn head() -> String {
    let variants = BlockVariant::ALL.map(|variant| format!("{}, us", name(variant)));
    format!("block | {} | chosen | takes", variants.join(" | "))
}

/// The name of a variant in a table: [`BOTH`] says what `both` is.
fn name(variant: BlockVariant) -> String {
    match variant.fuse_siblings && variant.conv_before_pool {
        true => "both".to_string(),
        false => variant.to_string(),
    }
}

/// What stands below a table of block variants.
const BOTH: &str = "both: fuse_siblings+conv_before_pool";

/// Microseconds that the plain forms of the blocks and the chosen ones take in all.
pub fn total(blocks: &[BlockVariantRecord]) -> [f64; 2] {
    blocks.iter().filter_map(gain).fold([0.0; 2], |sum, us| [sum[0] + us[0], sum[1] + us[1]])
}

/// The total in words; none where nothing was measured.
pub fn summary(blocks: &[BlockVariantRecord]) -> Option<String> {
    let [plain, chosen] = total(blocks);
    (plain > 0.0).then(|| {
        let [chosen_time, plain_time] = [chosen, plain].map(time_text);
        let more = more(chosen / plain);
        format!(
            "the steps that block variants change take {chosen_time}, {plain_time} in the plain form ({more})"
        )
    })
}

/// The form of a block, what its steps take and what those of the others take, in words.
pub fn form(block: &BlockVariantRecord) -> String {
    let time = |us: Option<f64>| microseconds(us).map_or("not measured".to_string(), time_text);
    let chosen = block.alternatives.iter().find(|a| a.variant == block.variant);
    let others = block.alternatives.iter().filter(|a| a.variant != block.variant);
    let others: Vec<String> = others.map(|a| format!("{} {}", a.variant, time(a.time_us))).collect();
    let (chosen, others) = (time(chosen.and_then(|a| a.time_us)), others.join(", "));
    one_line(&format!("{} of {}: {chosen}; {others}; {}", block.variant, block.block, block.reason))
}

/// All blocks that have several variants, as a table and a sum.
pub fn text(blocks: &[BlockVariantRecord], width: usize) -> String {
    if blocks.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&head());
    for block in blocks {
        table.row(&cells(block).iter().map(|cell| cell as &dyn Display).collect::<Vec<_>>());
    }
    let mut notes = vec![BOTH.to_string()];
    notes.extend(summary(blocks));
    if blocks.iter().any(|block| block.reason == VariantReason::Overruled) {
        notes.push(format!("{}: the plan is the plain one", VariantReason::Overruled));
    }
    table.fold(width) + &paragraphs(notes, width, 2)
}
