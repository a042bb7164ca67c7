//! Whole networks for tests: graph, weights, kernels by a rule.

use kernels::cpu::Cpu;
use kernels::kernel::{Tuning, table};
use kernels::problem::{PoolKind, Problem};
use tuner::graph::{Graph, Slice};
use tuner::model::{BLOCKS, Model};
use tuner::planner::{default_choice, default_choices};
use tuner::rewrite::{Rewrite, rewritten};
use tuner::session::{Choice, Session};
use tuner::threads::Threads;
use tuner::weights::{Source, Spec, Weights};

/// InceptionV3 or a block of it, with weights and threads.
pub struct Network {
    /// The model.
    pub model: Model,
    /// Its steps.
    pub graph: Graph,
    /// Its weights.
    pub weights: Weights,
    /// The processor.
    pub cpu: Cpu,
    /// Worker threads.
    pub threads: Threads,
}

/// All that InceptionV3 needs of a weights file.
pub fn spec() -> Spec {
    let graph = Graph::new(&Model::inception_v3(None), 1, PoolKind::Average);
    Spec { convs: graph.conv_specs().cloned().collect(), features: 2048 }
}

impl Network {
    /// On synthetic weights.
    pub fn synthetic(average: PoolKind, batch: usize, threads: usize) -> Self {
        Self::on(&Source::Synthetic { seed: 1 }, average, batch, threads)
    }

    /// On given weights.
    pub fn on(source: &Source, average: PoolKind, batch: usize, threads: usize) -> Self {
        let weights = Weights::open(source, &spec()).unwrap_or_else(|e| panic!("{e}"));
        Self::of(Model::inception_v3(weights.classes()), weights, average, batch, threads)
    }

    /// One block on synthetic weights.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block(name: &str, average: PoolKind, batch: usize, threads: usize) -> Self {
        let weights =
            Weights::open(&Source::Synthetic { seed: 1 }, &spec()).unwrap_or_else(|e| panic!("{e}"));
        Self::of(Model::block(name).expect("a block"), weights, average, batch, threads)
    }

    fn of(model: Model, weights: Weights, average: PoolKind, batch: usize, threads: usize) -> Self {
        let graph = Graph::new(&model, batch, average);
        let threads = Threads::new(threads).expect("threads");
        Self { model, graph, weights, cpu: Cpu::detect(), threads }
    }

    /// With all blocks that have such a form in it.
    pub fn in_form(mut self, rewrite: Rewrite) -> Self {
        for (block, _) in BLOCKS {
            self.graph = rewritten(&self.graph, block, rewrite).unwrap_or(self.graph);
        }
        self
    }

    /// Ready to run.
    pub fn session(&self, choices: &[Choice]) -> Session {
        Session::new(self.graph.clone(), choices, &self.weights, &self.cpu, &self.threads)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> usize {
        self.model.nodes.iter().position(|n| n.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Steps up to and including the last that writes a slice.
    pub fn steps_until(&self, slice: &Slice) -> usize {
        let writes = |s: &tuner::graph::Step| s.dst.iter().any(|dst| dst.tensor == slice.tensor);
        1 + self.graph.steps.iter().rposition(writes).expect("a step writes it")
    }
}

/// A rule that chooses a kernel for every step.
pub type Rule = fn(&Graph, &Cpu) -> Vec<Choice>;

/// The first row of a family that takes a problem here, with the tuning that `pick` wants, else the
/// default choice.
fn by_family(graph: &Graph, cpu: &Cpu, family: &str, pick: impl Fn(&[Tuning]) -> Tuning) -> Vec<Choice> {
    let choose = |problem: &Problem| {
        let rows = table().iter().filter(|row| row.family == family);
        let taken = rows.filter_map(|row| {
            let kernel = (row.make)(cpu).ok()?;
            kernel.supports(problem).ok()?;
            Some(Choice { row, tuning: pick(&kernel.tunings(problem)) })
        });
        let direct = || {
            table().iter().filter(|row| row.family == "direct").find_map(|row| {
                let kernel = (row.make)(cpu).ok()?;
                kernel.supports(problem).ok()?;
                Some(Choice { row, tuning: kernel.tunings(problem)[0].clone() })
            })
        };
        taken.into_iter().next().or_else(direct).unwrap_or_else(|| default_choice(problem, cpu))
    };
    graph.steps.iter().map(|step| choose(&step.problem)).collect()
}

fn first(tunings: &[Tuning]) -> Tuning {
    tunings[0].clone()
}

/// The tuning with the largest output tile: the least exact.
fn largest_tile(tunings: &[Tuning]) -> Tuning {
    tunings.iter().max_by_key(|t| t.get("m")).expect("a tuning").clone()
}

/// Rules that together use every family, the least exact tunings among them.
pub fn plans() -> Vec<(&'static str, Rule)> {
    vec![
        ("default", default_choices as Rule),
        ("direct", |g, cpu| by_family(g, cpu, "direct", first)),
        ("winograd, largest tiles", |g, cpu| by_family(g, cpu, "winograd", largest_tile)),
        ("separable, largest tiles", |g, cpu| by_family(g, cpu, "separable", largest_tile)),
        ("im2col_gemm", |g, cpu| by_family(g, cpu, "im2col_gemm", first)),
        ("unfused", |g, cpu| by_family(g, cpu, "unfused", first)),
    ]
}

/// The largest error growth among choices.
pub fn growth_of(graph: &Graph, choices: &[Choice], cpu: &Cpu) -> f64 {
    let growth = |(step, choice): (&tuner::graph::Step, &Choice)| {
        let kernel = (choice.row.make)(cpu).expect("a chosen kernel is there");
        kernel.numerics(&step.problem, &choice.tuning).growth
    };
    graph.steps.iter().zip(choices).map(growth).fold(1.0, f64::max)
}
