//! A network ready to run: kernels prepared, memory laid out, one fork-join region an inference.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kernels::{
    Buffer, Cpu, Dtype, Filter, Format, Formats, Padding, Placement, Prepared, Problem, Signature, Team,
    Unsupported,
};
use serde::{Deserialize, Serialize};

use crate::network::{
    Calibration, Choice, Graph, ScaleError, Scales, Slice, Step, Weight, of_tensors, pair, scales, supported,
};
use crate::runtime::layout::lay_out;
use crate::runtime::memory::{elements, process_bytes};
use crate::runtime::order::turns;
use crate::runtime::threads::Threads;
use crate::runtime::weight_cache::{WeightCache, WeightCacheError};
use crate::weights::{Weights, WeightsError};

/// Why a network can't be prepared. Layers are the first of a step.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A kernel does not take its step.
    #[error("step `{layer}`: kernel {kernel}: {refusal}")]
    Refused { layer: String, kernel: &'static str, refusal: Unsupported },
    /// A step reads or writes a tensor as another type than the steps before it.
    #[error("step `{layer}`: {what} {found}, expected {expected} as the steps before it")]
    Types { layer: String, what: &'static str, found: Dtype, expected: Dtype },
    /// Tensors are of u8 that have no scales.
    #[error(transparent)]
    Scale(#[from] ScaleError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    WeightCache(#[from] WeightCacheError),
    /// The weights have no dense layer where the graph does.
    #[error("{weights}: found no dense layer, expected one for the classes")]
    NoTop { weights: String },
}

fn refused(step: &Step, choice: &Choice, refusal: Unsupported) -> PrepareError {
    PrepareError::Refused { layer: step.layers[0].clone(), kernel: choice.row.id, refusal }
}

/// What a network can be given in addition to choices and weights.
#[derive(Clone, Copy, Default)]
pub struct PrepareOptions<'a> {
    /// Tensors have at least these halos; those that are not given have what their readers want.
    pub halos: &'a [Padding],
    /// Weights that have been packed before. Kernels that keep their filters as they are have none.
    pub packed: Option<&'a WeightCache>,
    /// The ranges of the network's activations: needed where a tensor is u8.
    pub calibration: Option<&'a Calibration>,
}

/// Bytes of a prepared network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBytes {
    /// Packed weights.
    pub weights: usize,
    pub activations: usize,
    pub scratch: usize,
    /// What a process takes on top, see [`process_bytes`]; none in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<usize>,
}

impl MemoryBytes {
    /// Of a process that runs the network; none where it is not known.
    pub fn total(&self) -> Option<usize> {
        Some(self.weights + self.activations + self.scratch + self.process?)
    }
}

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
    pub(super) fn of(slice: &Slice, graph: &Graph, tensors: &[Placement]) -> Self {
        Self {
            at: tensors[slice.tensor].channels(slice.channels.clone()),
            is_tensor_per_worker: graph.is_tensor_per_worker(slice.tensor),
        }
    }

    /// The arena that it is in: that of a worker, or that of all.
    pub(super) fn memory<'a>(&self, arena: &'a Buffer, worker: Option<&'a WorkerMemory>) -> &'a Buffer {
        worker.filter(|_| self.is_tensor_per_worker).map_or(arena, |worker| &worker.arena)
    }
}

/// What a worker has for itself, for steps that it takes solo: without the other workers.
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
    pub(super) scales: Arc<Scales>,
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

/// The filters that a step's kernel packs: over the scales of the tensors that it reads and writes;
/// with expected inputs if it rounds weights.
pub fn filters(
    step: &Step,
    weights: &Weights,
    rounding: Dtype,
    scales: &Scales,
) -> Result<Vec<Filter>, PrepareError> {
    let of = |slice: &Slice| Some(&scales.get(slice.tensor)?.as_ref()?[slice.channels.clone()]);
    let one = |(weight, dst): (&Weight, &Slice)| {
        let inputs = of(&step.src).filter(|_| !matches!(weight, Weight::Bias(_)));
        Ok(unscaled(weight, weights, rounding)?.rescaled(inputs, of(dst)))
    };
    step.weights.iter().zip(&step.dst).map(one).collect()
}

/// A filter of a step where no tensor has scales.
fn unscaled(weight: &Weight, weights: &Weights, rounding: Dtype) -> Result<Filter, PrepareError> {
    match weight {
        Weight::Conv(spec) => {
            let expected = if rounding == Dtype::F32 { None } else { weights.expected_inputs(spec)? };
            Ok(Filter { expected, ..weights.conv(spec)? })
        }
        Weight::Bias(spec) => Ok(weights.conv(spec)?.without_weights()),
        Weight::Dense(layer) if weights.head().is_some_and(|head| *layer < head.layers.len()) => {
            Ok(weights.dense(*layer)?)
        }
        Weight::Dense(_) => Err(PrepareError::NoTop { weights: weights.description() }),
    }
}

/// Filters of this many weights are prepared first: packing has them in memory more than once.
const LARGE: u128 = 1 << 20;

/// The order in which steps are prepared: theirs, so that weights lie as they are used, but for
/// large ones.
fn preparation_order(graph: &Graph) -> Vec<usize> {
    let mut order: Vec<usize> = (0..graph.steps.len()).collect();
    let weights = |index: usize| elements(&graph.steps[index].problem)[2];
    order.sort_by_key(|&index| std::cmp::Reverse(Some(weights(index)).filter(|&weights| weights >= LARGE)));
    order
}

/// The format of each tensor: its type, and the halo that its most demanding reader wants, or a
/// given one if that is wider.
pub(super) fn formats(graph: &Graph, choices: &[Choice], types: &[Dtype], halos: &[Padding]) -> Vec<Format> {
    let halos = halos.iter().copied().chain(std::iter::repeat(Padding::default()));
    let mut list: Vec<Format> =
        types.iter().zip(halos).map(|(&dtype, halo)| Format { dtype, halo }).collect();
    for (step, choice) in graph.steps.iter().zip(choices) {
        let halo = &mut list[step.src.tensor].halo;
        *halo = halo.with(choice.formats.src.halo);
    }
    list
}

/// Elements of scratch for a team: the most that a step needs which all workers share, or which each
/// takes solo.
pub(super) fn scratch(graph: &Graph, prepared: &[&dyn Prepared], solo: bool, workers: usize) -> usize {
    let those = prepared.iter().enumerate().filter(|(index, _)| graph.is_per_worker(*index) == solo);
    those.map(|(_, step)| step.scratch_of_team(workers)).max().unwrap_or(0)
}

impl PreparedNetwork {
    /// As [`Self::with_options`], with the ranges of activations alone.
    pub fn new(
        graph: Graph,
        choices: &[Choice],
        calibration: Option<&Calibration>,
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
    ) -> Result<Self, PrepareError> {
        let options = PrepareOptions { calibration, ..Default::default() };
        Self::with_options(graph, choices, weights, cpu, threads, options)
    }

    /// Prepares every step by its choice, on all threads, and sizes the memory.
    ///
    /// # Errors
    /// If a kernel refuses its step, steps do not agree on types, ranges are missing, weights are
    /// missing or wrong, or packed weights are not theirs.
    ///
    /// # Panics
    /// If there is not one choice a step.
    pub fn with_options(
        graph: Graph,
        choices: &[Choice],
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
        PrepareOptions { halos, packed, calibration }: PrepareOptions,
    ) -> Result<Self, PrepareError> {
        assert_eq!(choices.len(), graph.steps.len(), "one choice a step");
        let types = of_tensors(&graph, choices).map_err(|d| PrepareError::Types {
            layer: graph.steps[d.step].layers[0].clone(),
            what: if d.reads { "reads" } else { "writes" },
            found: d.found,
            expected: d.expected,
        })?;
        let scales = Arc::new(scales(&graph, &types, calibration)?);
        let formats = formats(&graph, choices, &types, halos);
        let pairs: Vec<(&Step, &Choice)> = graph.steps.iter().zip(choices).collect();
        let kernel = |&(step, choice): &(&Step, &Choice)| {
            supported(choice.row, cpu, &step.problem).map_err(|refusal| refused(step, choice, refusal))
        };
        let kernels = pairs.iter().map(kernel).collect::<Result<Vec<_>, _>>()?;
        let order = preparation_order(&graph);
        let prepared = threads.map(&order, |&index| {
            let ((step, choice), kernel) = (pairs[index], &kernels[index]);
            let formats = Formats { src: formats[step.src.tensor], ..choice.formats };
            let filters = match packed {
                Some(packed) if packed.has(index) => {
                    step.problem.filter_dims().into_iter().map(Filter::dims_only).collect()
                }
                _ => {
                    let rounding = kernel.numerics(&step.problem, &choice.tuning).rounding;
                    filters(step, weights, rounding, &scales)?
                }
            };
            let mut prepared = kernel
                .prepare(&step.problem, &choice.tuning, &formats, &filters)
                .map_err(|refusal| refused(step, choice, refusal))?;
            if let Some(packed) = packed {
                packed.read(index, prepared.packed_mut())?;
            }
            Ok::<_, PrepareError>(Arc::from(prepared))
        });
        let mut prepared: Vec<_> = order.into_iter().zip(prepared).collect();
        prepared.sort_unstable_by_key(|(index, _)| *index);
        let prepared = prepared.into_iter().map(|(_, prepared)| prepared).collect::<Result<_, _>>()?;
        Ok(Self::lay_out(graph, prepared, &formats, scales, threads.count()))
    }

    /// Prepared kernels, one a step, in memory of their own.
    fn lay_out(
        graph: Graph,
        prepared: Vec<Arc<dyn Prepared>>,
        formats: &[Format],
        scales: Arc<Scales>,
        workers: usize,
    ) -> Self {
        let (tensors, sizes) = lay_out(&graph, formats);
        let placed = |slice: &Slice| Placed::of(slice, &graph, &tensors);
        let ready = |(step, prepared): (&Step, Arc<dyn Prepared>)| Ready {
            has_weights: matches!(step.problem, Problem::Conv(_)),
            src: placed(&step.src),
            dst: step.dst.iter().map(placed).collect(),
            prepared,
        };
        let steps: Vec<Ready> = graph.steps.iter().zip(prepared).map(ready).collect();
        let prepared: Vec<&dyn Prepared> = steps.iter().map(|step| &*step.prepared).collect();
        let scratch = |solo: bool, workers: usize| scratch(&graph, &prepared, solo, workers);
        let worker_memory = |_| WorkerMemory {
            team: Team::new(1),
            arena: Buffer::zeroed(sizes.per_worker),
            scratch: Buffer::zeroed(scratch(true, 1)),
        };
        let solo_workers = if steps.is_empty() || !graph.is_per_worker(0) { 0 } else { workers };
        Self {
            worker_memory: (0..solo_workers).map(worker_memory).collect(),
            scratch: Buffer::zeroed(scratch(false, workers)),
            ends: turns(&graph, graph.batch, 0..steps.len()).map(|_| AtomicU64::new(0)).collect(),
            latest: 0,
            arena: Buffer::zeroed(sizes.shared),
            team: Team::new(workers),
            graph,
            steps,
            tensors,
            scales,
        }
    }

    /// The same kernels and packed weights with memory of its own, for so many workers.
    pub fn fork(&self, workers: usize) -> Self {
        let format = |at: &Placement| Format { dtype: at.dtype, halo: at.halo };
        let formats: Vec<Format> = self.tensors.iter().map(format).collect();
        let prepared = self.steps.iter().map(|step| step.prepared.clone()).collect();
        Self::lay_out(self.graph.clone(), prepared, &formats, self.scales.clone(), workers)
    }

    pub fn tensors(&self) -> &[Placement] {
        &self.tensors
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn packed(&self) -> Vec<Vec<&Buffer>> {
        self.steps.iter().map(|step| step.prepared.packed()).collect()
    }

    pub fn memory(&self) -> MemoryBytes {
        let bytes = |shared: &Buffer, of_worker: fn(&WorkerMemory) -> &Buffer| {
            let of_workers = self.worker_memory.iter().map(of_worker);
            [shared].into_iter().chain(of_workers).map(|buffer| buffer.len() * size_of::<f32>()).sum()
        };
        MemoryBytes {
            weights: self.steps.iter().map(|step| step.prepared.packed_bytes()).sum(),
            activations: bytes(&self.arena, |memory| &memory.arena),
            scratch: bytes(&self.scratch, |memory| &memory.scratch),
            process: Some(process_bytes(&self.graph, self.team.workers())),
        }
    }

    /// Whether a kernel may take a step without another for its neighbours: its types are the
    /// step's, and the network has the halo that it wants.
    pub fn takes(&self, step: usize, formats: &Formats) -> bool {
        let bound = self.steps[step].prepared.signature().formats;
        pair(&bound) == pair(formats) && bound.src.halo.with(formats.src.halo) == bound.src.halo
    }

    /// Prepares another kernel for a step that it takes ([`Self::takes`]).
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
        let filters = filters(&self.graph.steps[step], weights, rounding, &self.scales)?;
        kernel.prepare(problem, &choice.tuning, formats, &filters).map(Arc::from).map_err(refused)
    }

    /// Puts an alternative in a step's place, and gives what was there.
    pub fn replace(&mut self, step: usize, prepared: Arc<dyn Prepared>) -> Arc<dyn Prepared> {
        let grow = |scratch: &mut Buffer, workers: usize| {
            let needed = prepared.scratch_of_team(workers);
            if needed > scratch.len() {
                *scratch = Buffer::zeroed(needed);
            }
        };
        match self.graph.is_per_worker(step) {
            true => self.worker_memory.iter_mut().for_each(|memory| grow(&mut memory.scratch, 1)),
            false => grow(&mut self.scratch, self.team.workers()),
        }
        std::mem::replace(&mut self.steps[step].prepared, prepared)
    }
}
