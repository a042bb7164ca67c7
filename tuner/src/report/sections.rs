//! The sections of a report from top to bottom, each with its charts.

use engine::Plan;

use crate::report::blocks::{measured_rules, rules, variants};
use crate::report::canvas::DrawError;
use crate::report::charts::{problem, shape};
use crate::report::data::{ProblemView, StepView};
use crate::report::dataset::{Chart, Dataset};
use crate::report::networks::{contest, pareto, scales, scaling, streams};
use crate::report::predicted::pairs;
use crate::report::roofs::{roofs, sentences};
use crate::report::text::count;
use crate::report::traffic::works;
use crate::report::{numbers, predicted, roofline, strip};

/// Charts with something in common.
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    pub title: String,
    pub paragraphs: Vec<String>,
    /// A table of the charts: each row begins with a name, and has the chart of the same place.
    pub index: Option<Index>,
    pub charts: Vec<Chart>,
    /// A reader opens the charts one by one.
    pub is_folded: bool,
}

/// A table whose rows lead to charts.
pub struct Index {
    /// Name of its file, without an ending.
    pub name: &'static str,
    pub data: Dataset,
    /// A chart's name a row; nothing where it has none.
    pub links: Vec<Option<String>>,
}

fn section(id: &'static str, title: &str) -> Section {
    let (paragraphs, charts) = (Vec::new(), Vec::new());
    Section { id, title: title.to_string(), paragraphs, index: None, charts, is_folded: false }
}

impl Section {
    fn says(mut self, text: impl Into<String>) -> Self {
        self.paragraphs.push(text.into());
        self
    }

    fn shows(mut self, name: &str, title: &str, svg: String, data: Dataset) -> Self {
        self.charts.push(Chart { name: name.to_string(), title: title.to_string(), svg, data });
        self
    }
}

/// All sections of a plan; `others` are plans of the same folder.
pub fn sections(
    plan: &Plan,
    steps: &[StepView],
    problems: &[ProblemView],
    others: &[Plan],
) -> Result<Vec<Section>, DrawError> {
    let mut sections = vec![network(plan, steps)?, rates(plan, steps)?, candidates(plan, problems)?];
    if !plan.is_of_list() {
        sections.extend([networks(plan)?, errors(plan)?, blocks(plan)?, scale(plan, others)?]);
    }
    Ok(sections)
}

fn network(plan: &Plan, steps: &[StepView]) -> Result<Section, DrawError> {
    let title = if plan.is_of_list() { "The list" } else { "The network" };
    let mut section = section("network-steps", title).shows(
        "network",
        "The steps in order",
        strip::network(plan, steps)?,
        numbers::steps(steps),
    );
    let pairs = pairs(steps);
    if pairs.is_empty() {
        return Ok(section.says("No step has both a prediction and a time in the whole network."));
    }
    let svg = predicted::draw(plan, steps.len(), &pairs)?;
    section = section.shows("predicted", "Prediction and measurement", svg, numbers::predicted(&pairs));
    Ok(section)
}

fn rates(plan: &Plan, steps: &[StepView]) -> Result<Section, DrawError> {
    let (works, peaks, roofs) = (works(steps), roofline::peaks(plan), roofs(plan));
    let svg = roofline::draw(plan, &works, &peaks, &roofs)?;
    let mut section = section("rates", "Rate by arithmetic intensity")
        .says(
            "A point is a convolution step. Its intensity is the operations of the direct computation over the \
             bytes of source, destination and packed weights, without the padding of the weights to whole \
             vectors. The effective rate counts the operations of the direct computation. The executed rate \
             counts those of the kernel: Winograd's and Strassen's kernels execute fewer.",
        )
        .shows("roofline", "Roofline of the convolutions", svg, numbers::roofline(plan, &works, &roofs));
    if !roofs.is_empty() {
        section = section.says(
            "A step is nearest to the limit that alone would take the largest share of its time: its arithmetic at \
             the peak, or its bytes at the roof of the level furthest from the cores that can deliver them in \
             that time.",
        );
    }
    Ok(sentences(plan, &works, &roofs).into_iter().fold(section, Section::says))
}

fn candidates(plan: &Plan, problems: &[ProblemView]) -> Result<Section, DrawError> {
    let drawn = |view: &ProblemView| !view.rows().is_empty();
    let name = |view: &ProblemView| view.file.trim_end_matches(".svg").to_string();
    let charts = problems.iter().filter(|view| drawn(view)).map(|view| {
        let title = format!("{}: {}", view.record.problem, shape(&view.conv));
        Ok(Chart {
            name: name(view),
            title,
            svg: problem(plan, view)?,
            data: numbers::candidates(plan, view),
        })
    });
    let charts = charts.collect::<Result<Vec<_>, DrawError>>()?;
    let index = Index {
        name: "problems",
        data: numbers::problems(problems),
        links: problems.iter().map(|view| drawn(view).then(|| name(view))).collect(),
    };
    let section = section("candidates", "The candidates of each problem").says(format!(
        "{} of convolution. Times are isolated, of all threads. A ratio is the time over that of the fastest \
         candidate of the same types, with the interval that holds it in 95 of 100 cases. A tie may be as fast \
         as that one.",
        count(problems.len(), "distinct problem")
    ));
    Ok(Section { index: Some(index), charts, is_folded: true, ..section })
}

fn networks(plan: &Plan) -> Result<Section, DrawError> {
    let mut section = section("networks", "The plan against other choices").shows(
        "contest",
        "Whole networks by way of choosing kernels",
        contest(plan)?,
        numbers::networks(plan),
    );
    let measured = measured_rules(plan);
    if measured.is_empty() {
        return Ok(
            section.says("The plan has no sums of published rules: not all that they choose was timed.")
        );
    }
    let svg = rules(plan, &measured)?;
    section = section.shows("rules", "Published rules", svg, numbers::rules(&measured));
    Ok(section)
}

fn errors(plan: &Plan) -> Result<Section, DrawError> {
    let section = section("errors", "What an error bound costs");
    match plan.pareto.is_empty() {
        true => Ok(section.says("Plans of other errors were not measured: tuner tune --pareto does so.")),
        false => Ok(section.shows("pareto", "Time by error", pareto(plan)?, numbers::pareto(plan))),
    }
}

fn blocks(plan: &Plan) -> Result<Section, DrawError> {
    let section = section("blocks", "Variants of blocks");
    if plan.block_variants.is_empty() {
        return Ok(section.says("No block has several variants."));
    }
    let about = "Pointwise convolutions of one tensor as one (fuse_siblings), a pointwise convolution before the \
                 mean that it follows (conv_before_pool), and both.";
    let data = numbers::variants(plan);
    Ok(section.says(about).shows("variants", "Variants of blocks", variants(plan)?, data))
}

fn scale(plan: &Plan, others: &[Plan]) -> Result<Section, DrawError> {
    let mut section = section("scaling", "Threads, batch and streams");
    let own = std::iter::once(plan);
    let like = |other: &&Plan| {
        let of = |plan: &Plan| (plan.model.clone(), plan.shape.clone(), plan.max_memory_mib);
        of(other) == of(plan) && other.max_rel_error == plan.max_rel_error && other.machine == plan.machine
    };
    let others = others.iter().filter(like).filter(|o| (o.threads, o.batch) != (plan.threads, plan.batch));
    let scales = scales(own.chain(others));
    if scales.len() < 2 {
        section = section.says(
            "There is no other plan of this model, machine and error bound in the folder of the plan whose time \
             was measured.",
        );
    } else {
        let svg = scaling(plan, &scales)?;
        section =
            section.shows("scaling", "Images a second by threads and batch", svg, numbers::scaling(&scales));
    }
    if plan.streams.is_empty() {
        return Ok(section.says("Several inferences at the same time were not measured."));
    }
    let svg = streams(plan)?;
    Ok(section.shows("streams", "Images a second of streams", svg, numbers::streams(plan)))
}
