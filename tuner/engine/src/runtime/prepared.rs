//! A network ready to run: kernels prepared, memory laid out, one fork-join region an inference.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kernels::cpu::Cpu;
use kernels::filter::Filter;
use kernels::kernel::{Prepared, Signature};
use kernels::memory::Buffer;
use kernels::problem::Problem;
use kernels::team::Team;
use kernels::tensor::{Dtype, Format, Formats, Placement};
use kernels::{Padding, Unsupported};

use crate::network::choice::Choice;
use crate::network::dtypes::{of_tensors, pair};
use crate::network::graph::{Graph, Slice, Step, Weight};
use crate::runtime::layout::lay_out;
use crate::runtime::order::turns;
use crate::runtime::threads::Threads;
use crate::runtime::weight_cache::{WeightCache, WeightCacheError};
use crate::weights::error::WeightsError;
use crate::weights::source::Weights;

/// Why a network can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A kernel does not take its step.
    #[error("step `{layer}`: kernel {kernel}: {refusal}")]
    Refused {
        /// The first layer of the step.
        layer: String,
        /// The kernel's id.
        kernel: &'static str,
        /// Its reason.
        refusal: Unsupported,
    },
    /// Steps that do not agree on the type of a tensor.
    #[error("step `{layer}`: {what} {found}, expected {expected} as the steps before it")]
    Types {
        /// The first layer of the step.
        layer: String,
        /// Reads or writes.
        what: &'static str,
        /// Its type.
        found: Dtype,
        /// Theirs.
        expected: Dtype,
    },
    /// Weights that are missing or wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Packed weights that are not what they must be.
    #[error(transparent)]
    WeightCache(#[from] WeightCacheError),
    /// The weights have no dense layer where the graph does.
    #[error("{weights}: found no dense layer, expected one for the classes")]
    NoTop {
        /// Where the weights are from.
        weights: String,
    },
}

fn refused(step: &Step, choice: &Choice, refusal: Unsupported) -> PrepareError {
    PrepareError::Refused { layer: step.layers[0].clone(), kernel: choice.row.id, refusal }
}

/// A step that is ready to run.
pub(super) struct Ready {
    pub(super) prepared: Arc<dyn Prepared>,
    pub(super) has_weights: bool,
    pub(super) src: Placed,
    pub(super) dst: Vec<Placed>,
}

/// Channels of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) at: Placement,
    /// In the memory of a worker.
    pub(super) is_tensor_per_worker: bool,
}

impl Placed {
    /// The arena that it is in: that of a worker, or that of all.
    pub(super) fn memory<'a>(&self, arena: &'a Buffer, worker: Option<&'a WorkerMemory>) -> &'a Buffer {
        worker.filter(|_| self.is_tensor_per_worker).map_or(arena, |worker| &worker.arena)
    }
}

/// What a worker has for itself, for steps that it takes alone.
pub(super) struct WorkerMemory {
    pub(super) team: Team,
    pub(super) arena: Buffer,
    pub(super) scratch: Buffer,
}

/// A network bound to weights, kernels and threads.
pub struct PreparedNetwork {
    pub(super) graph: Graph,
    pub(super) steps: Vec<Ready>,
    pub(super) tensors: Vec<Placement>,
    pub(super) arena: Buffer,
    pub(super) scratch: Buffer,
    pub(super) team: Team,
    /// One a worker, where each takes images of its own through the first steps.
    pub(super) worker_memory: Vec<WorkerMemory>,
    /// When each turn of the latest run ended, in nanoseconds from its start.
    pub(super) ends: Vec<AtomicU64>,
    /// Images of the latest run.
    pub(super) latest: usize,
}

/// The filters that a step's kernel packs; with what is expected of their inputs if it rounds weights.
///
/// # Errors
/// If weights are missing or wrong.
pub fn filters(step: &Step, weights: &Weights, rounding: Dtype) -> Result<Vec<Filter>, PrepareError> {
    let one = |weight: &Weight| match weight {
        Weight::Conv(spec) => {
            let expected = if rounding == Dtype::F32 { None } else { weights.expected_inputs(spec)? };
            Ok(Filter { expected, ..weights.conv(spec)? })
        }
        Weight::Bias(spec) => Ok(weights.conv(spec)?.without_weights()),
        Weight::Dense => {
            weights.dense()?.ok_or_else(|| PrepareError::NoTop { weights: weights.description() })
        }
    };
    step.weights.iter().map(one).collect()
}

/// Filters of this many weights are prepared first: while they are packed, they are in memory more than once.
const LARGE: usize = 1 << 20;

/// The order in which steps are prepared: theirs, so that weights lie as they are used, but for large ones.
fn preparation_order(graph: &Graph) -> Vec<usize> {
    let mut order: Vec<usize> = (0..graph.steps.len()).collect();
    let weights = |index: usize| match &graph.steps[index].problem {
        Problem::Conv(conv) => conv.depth() * conv.filters(),
        _ => 0,
    };
    order.sort_by_key(|&index| std::cmp::Reverse(Some(weights(index)).filter(|&weights| weights >= LARGE)));
    order
}

/// The format of each tensor: its type, and the halo that its most demanding reader wants, or a given one if that is wider.
fn formats(graph: &Graph, choices: &[Choice], halos: &[Padding]) -> Result<Vec<Format>, PrepareError> {
    let types = of_tensors(graph, choices).map_err(|d| PrepareError::Types {
        layer: graph.steps[d.step].layers[0].clone(),
        what: if d.reads { "reads" } else { "writes" },
        found: d.found,
        expected: d.expected,
    })?;
    let halo = |tensor| halos.get(tensor).copied().unwrap_or_default();
    let mut list: Vec<Format> =
        types.into_iter().enumerate().map(|(tensor, dtype)| Format { dtype, halo: halo(tensor) }).collect();
    for (step, choice) in graph.steps.iter().zip(choices) {
        let halo = &mut list[step.src.tensor].halo;
        *halo = halo.with(choice.formats.src.halo);
    }
    Ok(list)
}

impl PreparedNetwork {
    /// Prepares every step by its choice, on all threads, and sizes the memory.
    ///
    /// # Errors
    /// If a kernel refuses its step, steps do not agree on types, or weights are missing or wrong.
    ///
    /// # Panics
    /// If there is not one choice a step.
    pub fn new(
        graph: Graph,
        choices: &[Choice],
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
    ) -> Result<Self, PrepareError> {
        Self::with_halos(graph, choices, &[], weights, cpu, threads)
    }

    /// As [`Self::new`], with tensors that have at least the given halos; those that are not given have none.
    ///
    /// # Errors
    /// As for [`Self::new`].
    ///
    /// # Panics
    /// As for [`Self::new`].
    pub fn with_halos(
        graph: Graph,
        choices: &[Choice],
        halos: &[Padding],
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
    ) -> Result<Self, PrepareError> {
        let formats = formats(&graph, choices, halos)?;
        let filters = |_, step: &Step, rounding| filters(step, weights, rounding);
        Self::build(graph, choices, &formats, cpu, threads, filters, |_, _| Ok(()))
    }

    /// As [`Self::new`], with weights that have been packed before; the others are of those that keep their
    /// filters as they are.
    ///
    /// # Errors
    /// If a kernel refuses its step, steps do not agree on types, or the packed weights are not theirs.
    pub fn of_packed(
        graph: Graph,
        choices: &[Choice],
        packed: &WeightCache,
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
    ) -> Result<Self, PrepareError> {
        let hollow = |index, step: &Step, rounding| match packed.has(index) {
            true => Ok(step.problem.filter_dims().into_iter().map(Filter::dims_only).collect()),
            false => filters(step, weights, rounding),
        };
        let read = |step, prepared: &mut dyn Prepared| Ok(packed.read(step, prepared.packed_mut())?);
        let formats = formats(&graph, choices, &[])?;
        Self::build(graph, choices, &formats, cpu, threads, hollow, read)
    }

    fn build(
        graph: Graph,
        choices: &[Choice],
        formats: &[Format],
        cpu: &Cpu,
        threads: &Threads,
        filters: impl Fn(usize, &Step, Dtype) -> Result<Vec<Filter>, PrepareError> + Sync,
        complete: impl Fn(usize, &mut dyn Prepared) -> Result<(), PrepareError> + Sync,
    ) -> Result<Self, PrepareError> {
        assert_eq!(choices.len(), graph.steps.len(), "one choice a step");
        let pairs: Vec<(&Step, &Choice)> = graph.steps.iter().zip(choices).collect();
        let mut made = Vec::new();
        for &(step, choice) in &pairs {
            let kernel = (choice.row.make)(cpu).map_err(|r| refused(step, choice, r))?;
            kernel.supports(&step.problem).map_err(|r| refused(step, choice, r))?;
            made.push(kernel);
        }
        let order = preparation_order(&graph);
        let prepared = threads.map(&order, |&index| {
            let (step, choice) = pairs[index];
            let formats = Formats { src: formats[step.src.tensor], ..choice.formats };
            let rounding = made[index].numerics(&step.problem, &choice.tuning).rounding;
            let mut prepared = made[index]
                .prepare(&step.problem, &choice.tuning, &formats, &filters(index, step, rounding)?)
                .map_err(|r| refused(step, choice, r))?;
            complete(index, &mut *prepared)?;
            Ok::<_, PrepareError>(prepared)
        });
        let mut prepared: Vec<_> = order.into_iter().zip(prepared).collect();
        prepared.sort_unstable_by_key(|(index, _)| *index);
        let prepared = prepared.into_iter().map(|(_, prepared)| prepared.map(Arc::from));
        let prepared = prepared.collect::<Result<_, _>>()?;
        Ok(Self::lay_out(graph, prepared, formats, threads.count()))
    }

    /// Prepared kernels, one a step, in memory of their own.
    fn lay_out(graph: Graph, prepared: Vec<Arc<dyn Prepared>>, formats: &[Format], workers: usize) -> Self {
        let (tensors, sizes) = lay_out(&graph, formats);
        let slice = |slice: &Slice| Placed {
            at: tensors[slice.tensor].channels(slice.channels.clone()),
            is_tensor_per_worker: graph.is_tensor_per_worker(slice.tensor),
        };
        let ready = |(step, prepared): (&Step, Arc<dyn Prepared>)| Ready {
            has_weights: matches!(step.problem, Problem::Conv(_)),
            src: slice(&step.src),
            dst: step.dst.iter().map(slice).collect(),
            prepared,
        };
        let steps: Vec<Ready> = graph.steps.iter().zip(prepared).map(ready).collect();
        let scratch = |alone: bool, workers: usize| {
            let those = steps.iter().enumerate().filter(|(index, _)| graph.is_per_worker(*index) == alone);
            those.map(|(_, step)| step.prepared.scratch_of_team(workers)).max().unwrap_or(0)
        };
        let worker_memory = |_| WorkerMemory {
            team: Team::new(1),
            arena: Buffer::zeroed(sizes.per_worker),
            scratch: Buffer::zeroed(scratch(true, 1)),
        };
        let alone = if steps.is_empty() || !graph.is_per_worker(0) { 0 } else { workers };
        Self {
            worker_memory: (0..alone).map(worker_memory).collect(),
            scratch: Buffer::zeroed(scratch(false, workers)),
            ends: turns(&graph, graph.batch, 0..steps.len()).map(|_| AtomicU64::new(0)).collect(),
            latest: 0,
            arena: Buffer::zeroed(sizes.shared),
            team: Team::new(workers),
            graph,
            steps,
            tensors,
        }
    }

    /// Where the tensors lie.
    pub fn tensors(&self) -> &[Placement] {
        &self.tensors
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The packed weights of each step.
    pub fn packed(&self) -> Vec<Vec<&Buffer>> {
        self.steps.iter().map(|step| step.prepared.packed()).collect()
    }

    /// Bytes of packed weights, of the activation arena and of scratch.
    pub fn memory(&self) -> [usize; 3] {
        let packed = self.steps.iter().map(|s| s.prepared.packed_bytes()).sum();
        let of_workers = |of: fn(&WorkerMemory) -> &Buffer| {
            self.worker_memory.iter().map(|memory| of(memory).len()).sum::<usize>()
        };
        let arena = self.arena.len() + of_workers(|memory| &memory.arena);
        let scratch = self.scratch.len() + of_workers(|memory| &memory.scratch);
        [packed, arena * size_of::<f32>(), scratch * size_of::<f32>()]
    }

    /// Whether a kernel may take a step's place without its neighbours': its types are the step's, and the
    /// network has the halo that it wants.
    pub fn takes(&self, step: usize, formats: &Formats) -> bool {
        let bound = self.steps[step].prepared.signature().formats;
        pair(&bound) == pair(formats) && bound.src.halo.with(formats.src.halo) == bound.src.halo
    }

    /// Prepares another kernel for a step that it takes ([`Self::takes`]).
    ///
    /// # Errors
    /// If the kernel refuses, or weights are missing or wrong.
    pub fn alternative(
        &self,
        step: usize,
        choice: &Choice,
        weights: &Weights,
        cpu: &Cpu,
    ) -> Result<Arc<dyn Prepared>, PrepareError> {
        let refused = |refusal| refused(&self.graph.steps[step], choice, refusal);
        let kernel = (choice.row.make)(cpu).map_err(refused)?;
        let Signature { problem, formats, .. } = self.steps[step].prepared.signature();
        let rounding = kernel.numerics(problem, &choice.tuning).rounding;
        let filters = filters(&self.graph.steps[step], weights, rounding)?;
        kernel.prepare(problem, &choice.tuning, formats, &filters).map(Arc::from).map_err(refused)
    }

    /// Puts an alternative in a step's place, and gives what was there.
    pub fn replace(&mut self, step: usize, prepared: Arc<dyn Prepared>) -> Arc<dyn Prepared> {
        let grow = |scratch: &mut Buffer, needed: usize| {
            if needed > scratch.len() {
                *scratch = Buffer::zeroed(needed);
            }
        };
        match self.graph.is_per_worker(step) {
            true => {
                let needed = prepared.scratch_of_team(1);
                self.worker_memory.iter_mut().for_each(|memory| grow(&mut memory.scratch, needed));
            }
            false => grow(&mut self.scratch, prepared.scratch_of_team(self.team.workers())),
        }
        std::mem::replace(&mut self.steps[step].prepared, prepared)
    }
}
