//! Streams: inferences that run at the same time, each in memory of its own, with the same packed
//! weights.
//!
//! For throughput. Streams of one thread each wait for nobody, and loading the next images takes
//! the cores that are free at any time.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::runtime::prepared::PreparedNetwork;
use crate::runtime::run::NotFinite;
use crate::runtime::threads::{Threads, ThreadsError, expected_threads, most_threads, start_thread};
use crate::util::in_order::InOrder;

/// Batches that each stream may be ahead of the one whose turn it is: a slow image does not stop
/// the others soon.
const BATCHES_AHEAD: usize = 4;

/// A network and the threads that run it.
pub struct Stream {
    pub threads: Threads,
    pub network: PreparedNetwork,
}

/// An image in memory, or what is there instead.
pub trait Loaded: Send {
    /// Values `[h, w, c]`; none where the image is not to be run.
    fn values(&self) -> Option<&[f32]>;
}

impl Loaded for &[f32] {
    fn values(&self) -> Option<&[f32]> {
        Some(self)
    }
}

impl Loaded for Vec<f32> {
    fn values(&self) -> Option<&[f32]> {
        Some(self)
    }
}

/// What could not be loaded is not run.
impl<I: Loaded, E: Send> Loaded for Result<I, E> {
    fn values(&self) -> Option<&[f32]> {
        self.as_ref().ok()?.values()
    }
}

/// What a batch gives.
#[derive(Debug)]
pub struct Ran<I> {
    /// The images, in order.
    pub images: Vec<I>,
    /// The last output of those that have values, `[n, h, w, c]`.
    pub output: Vec<f32>,
    /// Their pooled features, `[n, features]`; none where the network has none.
    pub features: Option<Vec<f32>>,
    /// Whether these are finite; an image's number counts those that have values.
    pub checked: Result<(), NotFinite>,
}

impl Stream {
    /// Runs the images of a batch, without loading.
    pub fn run<I: Loaded>(&mut self, images: Vec<I>) -> Ran<I> {
        let with_values: Vec<&[f32]> = images.iter().filter_map(I::values).collect();
        let n = with_values.len();
        if n == 0 {
            return Ran { images, output: Vec::new(), features: Some(Vec::new()), checked: Ok(()) };
        }
        let Self { threads, network } = self;
        let values = match with_values[..] {
            [one] => Cow::Borrowed(one),
            _ => Cow::Owned(with_values.concat()),
        };
        let checked = threads.install(|| {
            network.run(threads, &values, n);
            network.check_finite(threads, &values, n)
        });
        Ran { images, output: network.output(n), features: network.features(n), checked }
    }
}

/// Streams of a network, on `threads` threads each.
///
/// # Errors
/// If they are more than are of use, or the system does not start them.
pub fn streams(network: &PreparedNetwork, count: usize, threads: usize) -> Result<Vec<Stream>, ThreadsError> {
    let all = count.saturating_mul(threads.max(1));
    if all > most_threads() {
        return Err(ThreadsError { count: all, reason: format!("expected {}", expected_threads()) });
    }
    let stream = |_| Ok(Stream { threads: Threads::new(threads)?, network: network.fork(threads) });
    (0..count).map(stream).collect()
}

/// Rounds of all streams that images are worth splitting for: all threads take each of fewer.
const ROUNDS: usize = 4;

/// Whether so many images are worth running on so many streams.
pub fn are_worth_splitting(images: usize, batch: usize, streams: usize) -> bool {
    images >= ROUNDS * batch * streams
}

/// How many images are run, and by how many threads they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub images: usize,
    pub loaders: usize,
    /// Images of an inference.
    pub batch: usize,
    pub streams: usize,
}

const NO_THREAD: &str = "the system starts no thread";

impl Work {
    /// Loads images by number, and runs them on the streams that `prepare` gives while the first
    /// are loaded; `each` gets batch after batch, in order and on the calling thread. In memory are
    /// never more images than the loaders have at work and thrice a batch of each stream. Once
    /// `stop` is true no other image is loaded; those that are loaded are run.
    ///
    /// # Errors
    /// Of `prepare` and of `each`, which end the run.
    ///
    /// # Panics
    /// If the system starts no thread. Where it starts some, these do it all.
    pub fn run<I: Loaded, E, S: AsMut<[Stream]>>(
        self,
        stop: &AtomicBool,
        load: impl Fn(usize) -> I + Sync,
        prepare: impl FnOnce() -> Result<S, E>,
        mut each: impl FnMut(Ran<I>) -> Result<(), E>,
    ) -> Result<S, E> {
        let Self { images, loaders, batch, streams } = self;
        let loaded = InOrder::new(images, loaders + 2 * batch * streams);
        let ran = InOrder::new(images.div_ceil(batch), BATCHES_AHEAD * streams);
        let queues = || (loaded.abandoned_by_panic(), ran.abandoned_by_panic());
        let one_takes = Mutex::new(());
        // The next images and the number of their batch.
        let take_batch = || {
            let _one = one_takes.lock().unwrap_or_else(PoisonError::into_inner);
            let images: Vec<I> = (0..batch).map_while(|_| loaded.take()).collect();
            if images.is_empty() {
                ran.close();
                return None;
            }
            Some((ran.claim()?, images))
        };
        let load_all = || {
            let _queues = queues();
            while let Some(number) = loaded.claim() {
                loaded.put(number, load(number));
                if stop.load(Ordering::Relaxed) {
                    loaded.close();
                }
            }
        };
        std::thread::scope(|scope| {
            let _queues = queues();
            let started = (0..loaders.max(1)).filter(|_| start_thread(scope, load_all).is_ok()).count();
            assert!(started > 0, "{NO_THREAD}");
            let run_all = || {
                let mut streams = prepare()?;
                let run = |stream: &mut Stream| {
                    let _queues = queues();
                    while let Some((number, images)) = take_batch() {
                        ran.put(number, stream.run(images));
                    }
                };
                std::thread::scope(|scope| {
                    let start = |stream| start_thread(scope, move || run(stream)).is_ok();
                    let started = streams.as_mut().iter_mut().map(start).filter(|started| *started).count();
                    assert!(started > 0, "{NO_THREAD}");
                    let _queues = queues();
                    let done = std::iter::from_fn(|| ran.take()).try_for_each(&mut each);
                    ran.abandon();
                    loaded.abandon();
                    done
                })?;
                Ok(streams)
            };
            let done = run_all();
            loaded.abandon();
            done
        })
    }
}
