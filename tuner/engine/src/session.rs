//! A network as a program runs it: images in, classes and features out, in its own threads.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use kernels::Cpu;

use crate::network::Model;
use crate::plan::error::PlanError;
use crate::plan::request::Request;
use crate::plan::schema::Plan;
use crate::runtime::{
    Loaded, Machine, MemoryError, NotFinite, PrepareError, PreparedNetwork, Ran, Running, Stream, Threads,
    ThreadsError, Work, are_worth_splitting, ensure_network, graph, streams,
};
use crate::weights::Weights;

/// Why a session can't be built.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The plan is for another model or machine, or does not fit; messages call its file `plan`.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The network needs more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system does not start the threads.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A kernel refuses its step, or weights are missing or wrong.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Why images can't be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The values are not those of one image or several.
    #[error("found {found} values, expected a multiple of {}: images of {shape:?}", .shape.iter().product::<usize>())]
    Size {
        /// How many values there are.
        found: usize,
        /// Height, width and channels of an image.
        shape: [usize; 3],
    },
    /// What the network makes of an image is infinite or not a number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// What a [`Session`] is made of.
#[derive(Debug)]
pub struct SessionBuilder<'a> {
    model: &'a Model,
    weights: &'a Weights,
    plan: Option<&'a Plan>,
    any_machine: bool,
    streams: usize,
}

impl<'a> SessionBuilder<'a> {
    /// The plan to run, which states threads and batch too; [`Plan::untuned`] where none is given.
    pub fn plan(self, plan: &'a Plan) -> Self {
        Self { plan: Some(plan), ..self }
    }

    /// Accepts a plan that was made on another machine. Its kernels must be on this one.
    pub fn any_machine(self) -> Self {
        Self { any_machine: true, ..self }
    }

    /// Many images run as so many inferences at the same time, which share the plan's threads; few
    /// run one after the other on all threads, as all do by default.
    pub fn streams(self, streams: usize) -> Self {
        Self { streams: streams.max(1), ..self }
    }

    /// Checks the plan in full, starts threads, and reads and packs the weights.
    ///
    /// # Errors
    /// If the plan does not fit, there is not the memory, or weights are missing or wrong.
    pub fn build(self) -> Result<Session, SessionError> {
        let model = self.weights.fit(self.model);
        let plan = self.plan.cloned().unwrap_or_else(|| Plan::untuned(&model));
        let (cpu, path) = (Cpu::detect(), Path::new("plan"));
        plan.check_wanted(path, &Request::new(&model).stated())?;
        if !self.any_machine {
            plan.check_machine(path, &Machine::of(&cpu))?;
        }
        plan.check_calibration(path, self.weights)?;
        let (graph, choices) = plan.network(path, &graph(&model, self.weights, plan.batch), &cpu)?;
        let threads_each = (plan.threads / self.streams).max(1);
        let running =
            Running { streams: self.streams, threads_each, ..Running::one(plan.threads, graph.batch) };
        ensure_network(&model.name, &graph, &choices, &cpu, running)?;
        let threads = Threads::new(plan.threads)?;
        let calibration = plan.calibration.as_ref();
        let network = PreparedNetwork::new(graph, &choices, calibration, self.weights, &cpu, &threads)?;
        let streams = split(&network, self.streams, plan.threads)?;
        let of_node = |node: usize| model.nodes[node].shape;
        Ok(Session {
            all: Stream { threads, network },
            streams,
            input: model.input(),
            output: of_node(model.output),
            features: model.features.map(|node| of_node(node)[2]),
            has_classes: model.has_top(),
        })
    }
}

/// Streams that share the threads; none where there is one of all.
fn split(network: &PreparedNetwork, count: usize, threads: usize) -> Result<Vec<Stream>, ThreadsError> {
    match count {
        1 => Ok(Vec::new()),
        _ => streams(network, count, (threads / count).max(1)),
    }
}

/// A network that is ready to run, and the threads that run it.
///
/// It wraps a [`PreparedNetwork`], whose `run` neither fails nor allocates.
pub struct Session {
    /// Of all threads.
    all: Stream,
    /// Those that share the threads; none where there is that of all only.
    streams: Vec<Stream>,
    input: [usize; 3],
    output: [usize; 3],
    features: Option<usize>,
    has_classes: bool,
}

impl Session {
    /// A session of a model on weights that were opened for it.
    pub fn builder<'a>(model: &'a Model, weights: &'a Weights) -> SessionBuilder<'a> {
        SessionBuilder { model, weights, plan: None, any_machine: false, streams: 1 }
    }

    /// Height, width and channels of an image.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Height, width and channels of the last output: 1, 1 and the number of classes, or else
    /// features, or else as the block has it.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// How many pooled features there are; none where the model has none.
    pub fn features(&self) -> Option<usize> {
        self.features
    }

    /// Whether the last output is probabilities, or else what the weights end with in their place.
    pub fn has_classes(&self) -> bool {
        self.has_classes
    }

    /// Images that are computed at once.
    pub fn batch(&self) -> usize {
        self.all.network.graph().batch
    }

    /// Threads that compute them.
    pub fn threads(&self) -> usize {
        self.all.threads.count()
    }

    /// Inferences at the same time where there are many images.
    pub fn streams(&self) -> usize {
        self.streams.len().max(1)
    }

    /// Another session on the same packed weights, with memory and threads of its own.
    ///
    /// # Errors
    /// If the system does not start the threads.
    pub fn fork(&self) -> Result<Self, ThreadsError> {
        let (count, Stream { network, .. }) = (self.threads(), &self.all);
        let all = Stream { threads: Threads::new(count)?, network: network.fork(count) };
        let streams = split(&all.network, self.streams(), count)?;
        Ok(Self { all, streams, ..*self })
    }

    /// Whether so many images are split.
    fn splits(&self, images: usize) -> bool {
        self.streams.len() > 1 && are_worth_splitting(images, self.batch(), self.streams.len())
    }

    /// Runs images, as many at once as the plan's batch: `[n, height, width, channels]` values,
    /// preprocessed, as [`crate::image::load`] gives one.
    ///
    /// # Errors
    /// If the values are not those of whole images, at least one.
    pub fn run(&mut self, images: &[f32]) -> Result<Output, RunError> {
        let size: usize = self.input.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(size) {
            return Err(RunError::Size { found: images.len(), shape: self.input });
        }
        let count = images.len() / size;
        let mut all = Output { images: 0, has_classes: self.has_classes, ..Output::default() };
        if self.splits(count) {
            let load = |number: usize| &images[number * size..][..size];
            self.run_each(count, 1, load, |batch| {
                let before = all.images;
                all.extend(batch.output.map_err(|error| error.after(before))?);
                Ok::<_, RunError>(())
            })?;
            return Ok(all);
        }
        let Self { all: Stream { threads, network }, .. } = self;
        for batch in images.chunks(size * network.graph().batch) {
            let n = batch.len() / size;
            let checked = threads.install(|| {
                network.run(threads, batch, n);
                network.check_finite(threads, batch, n)
            });
            checked.map_err(|error| RunError::from(error).after(all.images))?;
            all.images += n;
            all.values.extend(network.output(n));
            all.features.extend(network.features(n).unwrap_or_default());
        }
        Ok(all)
    }

    /// Runs `count` images that `load` gives by number, on `loaders` threads while others are run:
    /// `each` gets batch after batch, in order and on the calling thread. In memory are never more
    /// images than the loaders have at work and thrice a batch of each stream.
    ///
    /// ```
    /// use engine::{Model, Session, Weights};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let model = Model::block("mixed10").ok_or("a block")?;
    /// let mut net = Session::builder(&model, &Weights::synthetic(&model, 1)).build()?;
    /// let size = model.input().iter().product();
    /// let mut sums = Vec::new();
    /// net.run_each(3, 2, |number| vec![number as f32; size], |batch| {
    ///     sums.push(batch.output?.values().iter().sum::<f32>());
    ///     Ok::<_, engine::RunError>(())
    /// })?;
    /// assert_eq!(sums.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of `each`, which end the run.
    ///
    /// # Panics
    /// If an image that is loaded has another number of values than the network takes.
    pub fn run_each<I: Loaded, E>(
        &mut self,
        count: usize,
        loaders: usize,
        load: impl Fn(usize) -> I + Sync,
        mut each: impl FnMut(Batch<I>) -> Result<(), E>,
    ) -> Result<(), E> {
        let size: usize = self.input.iter().product();
        let load = |number| {
            let image = load(number);
            let found = image.values().map(<[f32]>::len);
            assert!(
                found.is_none_or(|found| found == size),
                "image {number}: {found:?} values, expected {size}"
            );
            image
        };
        let (batch, has_classes) = (self.batch(), self.has_classes);
        let mut each = |Ran { images, output, features, checked }: Ran<I>| {
            let n = images.iter().filter(|image| image.values().is_some()).count();
            let features = features.unwrap_or_default();
            let output = Output { images: n, values: output, features, has_classes };
            each(Batch { images, output: checked.map(|()| output).map_err(RunError::from) })
        };
        if count <= batch && loaders <= 1 {
            // One inference, for which no thread is started.
            let images: Vec<I> = (0..count).map(load).collect();
            return if count == 0 { Ok(()) } else { each(self.all.run(images)) };
        }
        let streams = match self.splits(count) {
            true => &mut self.streams[..],
            false => std::slice::from_mut(&mut self.all),
        };
        let work = Work { images: count, loaders, batch, streams: streams.len() };
        work.run(&AtomicBool::new(false), load, || Ok(streams), each).map(drop)
    }
}

/// What [`Session::run_each`] gives of a batch.
#[derive(Debug)]
pub struct Batch<I> {
    /// The images, in order.
    pub images: Vec<I>,
    /// What the network makes of those that have values; an error counts these.
    pub output: Result<Output, RunError>,
}

impl RunError {
    /// With the number of an image behind so many others.
    fn after(self, images: usize) -> Self {
        match self {
            Self::NotFinite(NotFinite { image, output }) => {
                Self::NotFinite(NotFinite { image: images + image, output })
            }
            other => other,
        }
    }
}

/// What a network makes of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    images: usize,
    /// The last output, `[n, ..]`.
    values: Vec<f32>,
    /// `[n, features]`; empty where the model has none.
    features: Vec<f32>,
    has_classes: bool,
}

impl Output {
    /// Of several, one after the other, of the same network.
    pub fn extend(&mut self, other: Self) {
        self.images += other.images;
        self.values.extend(other.values);
        self.features.extend(other.features);
        self.has_classes |= other.has_classes;
    }

    /// How many images there were.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The classes of the first image with the highest probabilities, and these, the highest first;
    /// nothing for a model without classes.
    pub fn top(&self, count: usize) -> Vec<(usize, f32)> {
        self.top_of(0, count)
    }

    /// As [`Output::top`], of any image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn top_of(&self, image: usize, count: usize) -> Vec<(usize, f32)> {
        let Some(probabilities) = self.probabilities() else { return Vec::new() };
        let classes = probabilities.len() / self.images;
        let of_image = &probabilities[image * classes..][..classes];
        let mut list: Vec<(usize, f32)> = of_image.iter().copied().enumerate().collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list.truncate(count);
        list
    }

    /// Probabilities `[n, classes]`, where the model has classes.
    pub fn probabilities(&self) -> Option<&[f32]> {
        self.has_classes.then_some(&self.values[..])
    }

    /// Pooled features `[n, features]`, where the model has them.
    pub fn features(&self) -> Option<&[f32]> {
        (!self.features.is_empty()).then_some(&self.features[..])
    }

    /// The last output of the model, `[n, ..]`: probabilities, or else features, or else the output
    /// of a block as `[n, height, width, channels]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::stats::relative_l2;
    use crate::weights::synthetic;

    #[test]
    fn a_session_gives_the_same_whatever_its_batch_and_says_what_does_not_fit() {
        let model = Model::block("mixed10").expect("a block");
        let weights = Weights::synthetic(&model, 1);
        let [h, w, c] = model.input();
        let images = synthetic::image(3, h, w, c, 0);
        let outputs = [1, 2].map(|batch| {
            let plan = Request::new(&model).threads(2).batch(batch).untuned();
            let mut session = Session::builder(&model, &weights).plan(&plan).build().expect("a session");
            assert_eq!((session.batch(), session.threads(), session.input()), (batch, 2, [h, w, c]));
            for wrong in [&images[..0], &images[1..]] {
                let error = session.run(wrong).expect_err("no whole images").to_string();
                assert!(error.contains(&format!("found {} values", wrong.len())), "{error}");
            }
            session.run(&images).expect("three images")
        });
        // The kernels of another batch may add in another order.
        let error = relative_l2(outputs[0].values(), outputs[1].values());
        assert!(error < 1e-5, "{error:e}");
        assert_eq!((outputs[0].images(), outputs[0].values().len()), (3, 3 * 8 * 8 * 2048));
        assert!(outputs[0].features().is_none() && outputs[0].top(5).is_empty());
        let other = Model::block("mixed9").expect("a block");
        let plan = Plan::untuned(&other);
        let error = Session::builder(&model, &weights).plan(&plan).build().err().expect("another model");
        assert_eq!(error.to_string(), "plan: model is mixed9, expected mixed10");
    }

    #[test]
    fn streams_and_forks_give_what_one_inference_after_the_other_does_bit_for_bit() {
        let model = Model::block("mixed10").expect("a block");
        let weights = Weights::synthetic(&model, 1);
        let plan = Request::new(&model).threads(2).batch(2).untuned();
        let builder = || Session::builder(&model, &weights).plan(&plan);
        let (mut one, mut two) =
            (builder().build().expect("a session"), builder().streams(2).build().expect("a session"));
        assert_eq!([one.streams(), two.streams(), two.threads()], [1, 2, 2]);
        let [h, w, c] = model.input();
        let (count, size) = (4 * 2 * 2 + 1, h * w * c);
        let images = synthetic::image(count, h, w, c, 0);
        let expected = one.run(&images).expect("images");
        assert_eq!(two.run(&images).expect("images"), expected);
        assert_eq!(two.fork().expect("threads").run(&images).expect("images"), expected);
        let load = |number: usize| match number % 5 {
            3 => Err(number),
            _ => Ok(images[number * size..][..size].to_vec()),
        };
        let (mut missing, mut values) = (Vec::new(), Vec::new());
        let collected = two.run_each(count, 2, load, |Batch { images, output }| {
            missing.extend(images.into_iter().filter_map(Result::err));
            values.extend_from_slice(output?.values());
            Ok::<_, RunError>(())
        });
        assert_eq!((collected, &missing[..]), (Ok(()), &[3, 8, 13][..]));
        let outputs = expected.values().chunks(expected.values().len() / count).enumerate();
        let there: Vec<f32> = outputs.filter(|(n, _)| n % 5 != 3).flat_map(|(_, v)| v.to_vec()).collect();
        assert!(values == there);
        let stopped = two.run_each(count, 2, load, |_| Err("enough"));
        assert_eq!(stopped, Err("enough"));
        assert_eq!(two.run(&images).expect("images"), expected, "after a run that has ended early");
    }

    #[test]
    fn an_image_that_is_not_finite_is_named_by_its_number() {
        let model = Model::block("mixed10").expect("a block");
        let plan = Request::new(&model).threads(2).untuned();
        let weights = Weights::synthetic(&model, 1);
        let size: usize = model.input().iter().product();
        for streams in [1, 2] {
            let session = Session::builder(&model, &weights).plan(&plan).streams(streams).build();
            let mut images = vec![0.5; 20 * size];
            images[13 * size] = f32::INFINITY;
            match session.expect("a session").run(&images) {
                Err(RunError::NotFinite(NotFinite { image, .. })) => assert_eq!(image, 13),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_classes_with_the_highest_probabilities_come_first() {
        let values = vec![0.1, 0.7, 0.2, 0.6, 0.1, 0.3];
        let output = Output { images: 2, values, features: Vec::new(), has_classes: true };
        assert_eq!(output.top(2), [(1, 0.7), (2, 0.2)]);
        assert_eq!(output.top_of(1, 9), [(0, 0.6), (2, 0.3), (1, 0.1)]);
    }
}
