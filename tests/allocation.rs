//! The run path allocates nothing but what starts its threads, and memory does not grow with the number
//! of images: a counting allocator is the proof.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cross_checks::network::{Network, plans};
use cross_checks::{Data, EPILOGUES, Subject, conv_with};
use engine::network::BlockVariant;
use engine::runtime::{Loaded, Threads, Work, streams};
use engine::weights::synthetic;
use kernels::{
    Epilogue, Io, Pool, PoolKind, Problem, Role, Team, Tensor, Window, run_alone, scratch_for, table,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the process, now and at most.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Held by a test while it counts: the counter is the process's.
static COUNTING: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether this thread's allocations count: the test runner's threads allocate at any time.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

#[allow(unsafe_code, reason = "a global allocator")]
// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread in `work`.
fn allocations_here(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    COUNTED.set(true);
    work();
    COUNTED.set(false);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Allocations of this thread and of the pool's when `work` is done three times after a first one.
fn allocations_of_three(threads: &Threads, mut work: impl FnMut()) -> usize {
    work();
    let mut team = Team::new(threads.count());
    threads.region(&mut team, |_| COUNTED.set(true));
    let during = allocations_here(|| (0..3).for_each(|_| work()));
    threads.region(&mut team, |_| COUNTED.set(false));
    during
}

#[test]
fn inferences_allocate_only_inside_the_gemm_crate() {
    let _counting = COUNTING.lock();
    let image = synthetic::image(1, 299, 299, 3, 0);
    for (count, variant) in [(1, BlockVariant::PLAIN), (2, BlockVariant::PLAIN), (2, BlockVariant::ALL[3])] {
        let network = Network::synthetic(PoolKind::Average, 1, count).in_form(variant);
        let threads = &network.threads;
        // Fork-join regions in which nothing happens.
        let mut team = Team::new(count);
        let regions = allocations_of_three(threads, || threads.region(&mut team, |member| member.wait()));
        assert!(regions == 0 || count > 1 && regions <= 30, "{regions} allocations of three regions");
        for (name, rule) in plans() {
            let (mut session, _) = network.session_by(rule);
            let found = allocations_of_three(threads, || session.run(threads, &image, 1));
            if name == "im2col_gemm" {
                assert!(found > regions, "the counter counts, and the baseline's role tells the truth");
            } else {
                assert_eq!(found, regions, "plan `{name}`, {variant}, on {count} threads");
            }
        }
    }
}

struct Image(Vec<f32>);

impl Loaded for Image {
    fn values(&self) -> Option<&[f32]> {
        Some(&self.0)
    }
}

#[test]
fn memory_does_not_grow_with_the_number_of_images() {
    let _counting = COUNTING.lock();
    let network = Network::block("mixed10", PoolKind::Average, 2, 1);
    let (session, _) = network.session_by(plans()[0].1);
    let image = synthetic::image(1, 8, 8, 2048, 0);
    let (streams_count, loaders, batch) = (2, 3, 2);
    // What is at work: loaded images, batches of a stream, and results that wait for their turn.
    let at_work = loaders + 3 * batch * streams_count + 4 * batch * streams_count;
    let (bytes, slack) = (image.len() * size_of::<f32>(), 1 << 20);
    let of_stream = session.memory();
    let of_streams = streams_count * (of_stream.activations + of_stream.scratch);
    for images in [100, 1000] {
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let mut done = 0;
        let streams = || streams(&session, streams_count, 1);
        let work = Work { images, loaders, batch, streams: streams_count };
        let ran = work.run(
            &AtomicBool::new(false),
            |_| Image(image.clone()),
            streams,
            |ran| {
                done += ran.images.len();
                Ok(())
            },
        );
        assert!(ran.is_ok() && done == images);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        // An image and its output, which has as many values.
        let bound = of_streams + 2 * at_work * bytes + slack;
        assert!(peak <= bound, "{images} images: {peak} bytes at most, expected {bound}");
        assert!(bound < images * bytes, "the bound says something");
    }
}

#[test]
fn candidates_do_not_allocate_while_they_run() {
    let _counting = COUNTING.lock();
    let shapes = ["n2h9w9c18k20+33r1s1", "n1h9w9c18k20+33r3s3", "n1h9w9c18k20+33r1s7", "n1h9w9c3k20r3s3u2"];
    let mut problems: Vec<Problem> = shapes.map(|text| conv_with(text, &EPILOGUES)).into();
    problems.push(Problem::Softmax { batch: 2, channels: 37 });
    problems.push(Problem::Sigmoid { batch: 2, channels: 37 });
    for (stride, kind, epilogue) in
        [([2, 2], PoolKind::Max, Epilogue::NONE), ([1, 1], PoolKind::Average, Epilogue::BIAS_RELU)]
    {
        let window = Window::valid([3, 3], stride);
        problems.push(Problem::Pool(Pool { batch: 2, image: [9, 9], channels: 37, window, kind, epilogue }));
    }
    for row in table().iter().filter(|row| row.role == Role::Candidate) {
        let Some(Subject { kernel, .. }) = Subject::of(row.id) else { continue };
        for problem in problems.iter().filter(|problem| kernel.supports(problem).is_ok()) {
            let data = Data::shared(problem);
            for tuning in kernel.tunings(problem) {
                let formats = kernel.formats(problem, &tuning)[0];
                let step = kernel.prepare(problem, &tuning, &formats, &data.filters).expect("supported");
                let mut src = Tensor::new(problem.src(), &formats.src);
                src.fill_nhwc(&data.src);
                let mut dst: Vec<Tensor> =
                    problem.dst().into_iter().map(|shape| Tensor::new(shape, &formats.dst)).collect();
                let io = Io::new(src.view(), dst.iter_mut().map(Tensor::view_mut));
                let scratch = scratch_for(&*step, 1);
                let count = allocations_here(|| run_alone(&*step, &io, &scratch));
                assert_eq!(count, 0, "{} on {problem}, tuning {tuning}", row.id);
            }
        }
    }
}
