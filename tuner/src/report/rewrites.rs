//! The variants of blocks: what each costs, and what the chosen ones gain.

use engine::network::block_variant::BlockVariant;
use engine::plan::reasons::VariantReason;
use engine::plan::records::BlockVariantRecord;
use engine::util::files::one_line;

use crate::report::data::microseconds;
use crate::report::table::{Table, wrap};
use crate::report::text::{more, short, time_text};

/// The variants of a block as cells: their times in microseconds in the order of [`BlockVariant::ALL`], empty where
/// the block has no such variant, the name of the chosen one, and what it takes more than the plain one.
pub fn cells(block: &BlockVariantRecord) -> Vec<String> {
    let cost = |variant: BlockVariant| {
        let known = block.alternatives.iter().find(|a| BlockVariant::from_name(&a.variant) == Some(variant));
        known.and_then(|a| microseconds(a.time_us)).map_or(String::new(), short)
    };
    let chosen = BlockVariant::from_name(&block.variant).map_or(block.variant.clone(), name);
    let takes = gain(block).map(|[plain, own]| more(own / plain));
    let mut cells = vec![block.block.clone()];
    cells.extend(BlockVariant::ALL.map(cost));
    cells.extend([chosen, takes.unwrap_or_default()]);
    cells
}

/// Microseconds of the plain form and of the chosen one.
fn gain(block: &BlockVariantRecord) -> Option<[f64; 2]> {
    let [plain, own] = block.gain_us()?;
    Some([microseconds(Some(plain))?, microseconds(Some(own))?])
}

/// What heads [`cells`].
pub fn head() -> Vec<String> {
    let variants = BlockVariant::ALL.map(|variant| format!("{}, us", name(variant)));
    ["block".to_string()].into_iter().chain(variants).chain(["chosen".into(), "takes".into()]).collect()
}

/// The name of a variant in a table: [`BOTH`] says what `both` is.
fn name(variant: BlockVariant) -> String {
    match variant.fuse_siblings && variant.conv_before_pool {
        true => "both".to_string(),
        false => variant.to_string(),
    }
}

/// What stands below a table of block variants.
pub const BOTH: &str = "both: fuse_siblings+conv_before_pool";

/// Microseconds that the plain forms of the blocks and the chosen ones take in all.
pub fn total(blocks: &[BlockVariantRecord]) -> [f64; 2] {
    blocks.iter().filter_map(gain).fold([0.0; 2], |sum, us| [sum[0] + us[0], sum[1] + us[1]])
}

/// The total in words; none where nothing was measured.
pub fn summary(blocks: &[BlockVariantRecord]) -> Option<String> {
    let [plain, own] = total(blocks);
    (plain > 0.0).then(|| {
        format!(
            "the steps that block variants change take {}, {} in the plain form ({})",
            time_text(own),
            time_text(plain),
            more(own / plain)
        )
    })
}

/// The form of a block, what its steps take and what those of the others take, in words.
pub fn form(block: &BlockVariantRecord) -> String {
    let time = |us: Option<f64>| microseconds(us).map_or("not measured".to_string(), time_text);
    let own = block.alternatives.iter().find(|a| a.variant == block.variant);
    let others = block.alternatives.iter().filter(|a| a.variant != block.variant);
    let others: Vec<String> = others.map(|a| format!("{} {}", a.variant, time(a.time_us))).collect();
    let text = format!(
        "{} of {}: {}; {}; {}",
        block.variant,
        block.block,
        time(own.and_then(|a| a.time_us)),
        others.join(", "),
        block.reason
    );
    one_line(&text)
}

/// All blocks that have several variants, as a table and a sum.
pub fn text(blocks: &[BlockVariantRecord], width: usize) -> String {
    if blocks.is_empty() {
        return String::new();
    }
    let head = head();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    blocks.iter().for_each(|block| table.row(cells(block)));
    let mut lines = vec![BOTH.to_string()];
    lines.extend(summary(blocks));
    if blocks.iter().any(|block| block.reason == VariantReason::Overruled) {
        lines.push(format!("{}: the plan is the plain one", VariantReason::Overruled));
    }
    let notes: Vec<String> = lines.iter().map(|line| wrap(line, width, 2)).collect();
    format!("{}{}\n", table.fold(width), notes.join("\n"))
}
