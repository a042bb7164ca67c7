//! The forms of blocks: what each costs, and what the chosen ones gain.

use std::io::Write;

use engine::network::block_variant::BlockVariant;
use engine::plan::reasons::VariantReason;
use engine::plan::records::BlockVariantRecord;
use engine::plan::schema::Plan;
use engine::util::error::Failure;
use engine::util::files::one_line;

use crate::report::data::{microseconds, short, time_text};
use crate::report::table::Table;

/// The forms of a block as cells: their times in microseconds in the order of [`BlockVariant::ALL`], empty where
/// the block has no such form, the name of the chosen one, and what it takes more than the plain one.
pub fn cells(block: &BlockVariantRecord) -> Vec<String> {
    let cost = |rewrite: BlockVariant| {
        let known = block.alternatives.iter().find(|a| a.variant == rewrite.to_string());
        known.and_then(|a| microseconds(a.time_us)).map_or(String::new(), short)
    };
    let more = gain(block).map(|[plain, own]| format!("{:+.1}%", (own / plain - 1.0) * 100.0));
    let mut cells = vec![block.block.clone()];
    cells.extend(BlockVariant::ALL.map(cost));
    cells.extend([block.variant.clone(), more.unwrap_or_default()]);
    cells
}

/// Microseconds of the plain form and of the chosen one.
fn gain(block: &BlockVariantRecord) -> Option<[f64; 2]> {
    let [plain, own] = block.gain_us()?;
    Some([microseconds(Some(plain))?, microseconds(Some(own))?])
}

/// What heads [`cells`].
pub fn head() -> Vec<String> {
    let forms = BlockVariant::ALL.map(|rewrite| format!("{rewrite}, us"));
    ["block".to_string()].into_iter().chain(forms).chain(["chosen".into(), "takes".into()]).collect()
}

/// Microseconds that the plain forms of the blocks and the chosen ones take in all.
pub fn total(blocks: &[BlockVariantRecord]) -> [f64; 2] {
    blocks.iter().filter_map(gain).fold([0.0; 2], |sum, us| [sum[0] + us[0], sum[1] + us[1]])
}

/// The total in words; none where nothing was measured.
pub fn summary(blocks: &[BlockVariantRecord]) -> Option<String> {
    let [plain, own] = total(blocks);
    (plain > 0.0).then(|| {
        format!(
            "the steps that rewrites touch take {} ms, {} ms without rewrites ({:+.1}%)",
            short(own / 1e3),
            short(plain / 1e3),
            (own / plain - 1.0) * 100.0
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

/// Prints the forms of all blocks that have several.
pub fn print_rewrites(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    if plan.block_variants.is_empty() {
        return Ok(());
    }
    let head = head();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    plan.block_variants.iter().for_each(|block| table.row(cells(block)));
    write!(out, "{table}")?;
    if let Some(text) = summary(&plan.block_variants) {
        writeln!(out, "{text}")?;
    }
    let overruled = |block: &&BlockVariantRecord| block.reason == VariantReason::Overruled;
    if plan.block_variants.iter().any(|block| overruled(&block)) {
        writeln!(out, "{}: the plan is the plain one", VariantReason::Overruled)?;
    }
    writeln!(out)?;
    Ok(())
}
