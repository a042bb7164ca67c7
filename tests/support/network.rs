//! Whole networks for tests: graph, weights, kernels by a rule.

use engine::network::{
    BlockVariant, Choice, Graph, Model, NETWORK, Precision, Slice, Step, SupportedKernel, available,
    default_choice, default_choices, lowest_choices, pair, with_variant,
};
use engine::runtime::{PreparedNetwork, Threads};
use engine::weights::Weights;
use kernels::{Cpu, PoolKind, Problem, Tuning};

/// InceptionV3 or a block of it, with weights and threads.
pub struct Network {
    pub model: Model,
    pub graph: Graph,
    pub weights: Weights,
    pub cpu: Cpu,
    pub threads: Threads,
}

impl Network {
    pub fn synthetic(average: PoolKind, batch: usize, threads: usize) -> Self {
        Self::on(Weights::synthetic(&Model::inception_v3(), 1), average, batch, threads)
    }

    pub fn on(weights: Weights, average: PoolKind, batch: usize, threads: usize) -> Self {
        let model = Model::inception_v3().with_classes(weights.classes());
        Self::of(model, weights, average, batch, threads)
    }

    /// One block, which must exist, on synthetic weights.
    pub fn block(name: &str, average: PoolKind, batch: usize, threads: usize) -> Self {
        let weights = Weights::synthetic(&Model::inception_v3(), 1);
        Self::of(Model::block(name).expect("a block"), weights, average, batch, threads)
    }

    fn of(model: Model, weights: Weights, average: PoolKind, batch: usize, threads: usize) -> Self {
        let graph = Graph::new(&model, batch, average);
        let threads = Threads::new(threads).expect("threads");
        Self { model, graph, weights, cpu: crate::cpu(), threads }
    }

    /// With all blocks that have such a form in it.
    pub fn in_form(mut self, variant: BlockVariant) -> Self {
        for block in NETWORK.blocks.iter().map(|block| block.name) {
            self.graph = with_variant(&self.graph, block, variant).unwrap_or(self.graph);
        }
        self
    }

    pub fn session(&self, choices: &[Choice]) -> PreparedNetwork {
        let Self { graph, weights, cpu, threads, .. } = self;
        let session = PreparedNetwork::new(graph.clone(), choices, None, weights, cpu, threads);
        session.unwrap_or_else(|e| panic!("{e}"))
    }

    /// A session by a rule, and the rounding of its choices.
    pub fn session_by(&self, rule: Rule) -> (PreparedNetwork, f64) {
        let choices = rule(&self.graph, &self.cpu);
        (self.session(&choices), self.rounding_of(&choices))
    }

    /// The largest rounding among choices: the spacing of numbers of the type, times the kernel's
    /// growth of errors.
    pub fn rounding_of(&self, choices: &[Choice]) -> f64 {
        let rounding = |(step, choice): (&Step, &Choice)| {
            let kernel = (choice.row.make)(&self.cpu).expect("a chosen kernel is there");
            let numerics = kernel.numerics(&step.problem, &choice.tuning);
            let [src, dst] = pair(&choice.formats);
            let spacing = [numerics.rounding, src, dst].map(|dtype| 2.0 * dtype.rounding_error(1.0));
            spacing.into_iter().fold(f32::EPSILON as f64 * numerics.growth, f64::max)
        };
        self.graph.steps.iter().zip(choices).map(rounding).fold(0.0, f64::max)
    }

    /// A node's output, and the number of steps up to and including the last that writes it.
    pub fn output_of(&self, node: &str) -> (&Slice, usize) {
        let index = self.model.nodes.iter().position(|n| n.name == node);
        let index = index.unwrap_or_else(|| panic!("no node {node}"));
        let slice = self.graph.nodes[index].as_ref().expect("a block's output");
        let writes = |step: &Step| step.dst.iter().any(|dst| dst.tensor == slice.tensor);
        (slice, 1 + self.graph.steps.iter().rposition(writes).expect("a step writes it"))
    }
}

/// A rule that chooses a kernel for every step.
pub type Rule = fn(&Graph, &Cpu) -> Vec<Choice>;

/// The first row of a family that takes a problem here, with the tuning that `pick` wants, else a
/// direct kernel, else the default choice.
fn by_family(graph: &Graph, cpu: &Cpu, family: &str, pick: fn(&[Tuning]) -> Tuning) -> Vec<Choice> {
    let choose = |problem: &Problem| {
        let (rows, _) = available(cpu, problem);
        let of = |family: &str, pick: fn(&[Tuning]) -> Tuning| {
            let SupportedKernel { row, kernel } = rows.iter().find(|found| found.row.family == family)?;
            Some(Choice::of(row, &**kernel, problem, pick(&kernel.tunings(problem))))
        };
        of(family, pick).or_else(|| of("direct", first)).unwrap_or_else(|| default_choice(problem, cpu))
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

/// As little f32 as the kernels for bf16 that a processor has allow.
pub fn in_bf16(graph: &Graph, cpu: &Cpu) -> Vec<Choice> {
    lowest_choices(graph, cpu, Precision::Bf16).expect("a choice")
}

/// As little f32 as the kernels for u8 that a processor has allow.
pub fn in_u8(graph: &Graph, cpu: &Cpu) -> Vec<Choice> {
    lowest_choices(graph, cpu, Precision::Int8).expect("a choice")
}

/// Rules that together use every family, the least exact tunings among them.
pub fn plans() -> Vec<(&'static str, Rule)> {
    vec![
        ("default", default_choices as Rule),
        ("direct", |g, cpu| by_family(g, cpu, "direct", first)),
        ("winograd, largest tiles", |g, cpu| by_family(g, cpu, "winograd", largest_tile)),
        ("separable, largest tiles", |g, cpu| by_family(g, cpu, "separable", largest_tile)),
        ("im2col", |g, cpu| by_family(g, cpu, "im2col", first)),
        ("im2col_gemm", |g, cpu| by_family(g, cpu, "im2col_gemm", first)),
        ("unfused", |g, cpu| by_family(g, cpu, "unfused", first)),
        // With instructions that are there: emulated ones take minutes.
        ("bf16", |g, cpu| in_bf16(g, &cpu.clone().limited_to(Cpu::detect().tier()))),
    ]
}
