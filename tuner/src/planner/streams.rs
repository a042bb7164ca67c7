//! Whether inferences at the same time give more images a second than one after the other.
//!
//! Streams of one thread each wait for no other worker; all threads on one image share what it reads.
//! Which is more depends on the machine, so that both are measured, in turn.

use std::time::Instant;

use engine::plan::StreamsRecord;
use engine::runtime::{PreparedNetwork, Stream, ThreadsError, start_thread, streams};
use engine::util::{median, ratio};

use crate::bench::{POLICY, Report, Stage, StageProgress};
use crate::planner::context::built_in_images;

/// Images a second of streams that each run as many batches as they can.
fn images_a_second(streams: &mut [Stream], images: &[f32]) -> Result<f64, ThreadsError> {
    let run = |Stream { threads, network }: &mut Stream| {
        let batch = network.graph().batch;
        threads.install(|| {
            let start = Instant::now();
            let mut done = 0;
            while done == 0 || start.elapsed() < POLICY.streams.turn {
                network.run(threads, images, batch);
                done += batch;
            }
            done as f64 / start.elapsed().as_secs_f64()
        })
    };
    match streams {
        [one] => Ok(run(one)),
        all => std::thread::scope(|scope| {
            let count = all.len();
            let start = |stream| {
                let started = start_thread(scope, move || run(stream));
                started.map_err(|error| ThreadsError { count, reason: error.to_string() })
            };
            let threads = all.iter_mut().map(start).collect::<Result<Vec<_>, _>>()?;
            Ok(threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum())
        }),
    }
}

/// Measures one inference after the other on all threads, which is the first record, and streams that
/// share the threads: one each, two each and so on. Called on a thread that may use all cores.
///
/// # Errors
/// If the system does not start the threads.
pub fn measure_streams(
    network: &PreparedNetwork,
    threads: usize,
    report: &dyn Report,
) -> Result<Vec<StreamsRecord>, ThreadsError> {
    let policy = &POLICY.streams;
    let of_threads = |each: &usize| threads.is_multiple_of(*each);
    let counts = (0..policy.ways).map(|power| 1 << power).filter(|each| *each < threads).filter(of_threads);
    let counts = [threads].into_iter().chain(counts);
    let mut ways: Vec<(usize, Vec<Stream>)> = counts
        .map(|each| Ok((each, streams(network, threads / each, each)?)))
        .collect::<Result<_, ThreadsError>>()?;
    if ways.len() == 1 {
        return Ok(Vec::new());
    }
    let images = built_in_images(network.graph(), network.graph().batch);
    let stage = StageProgress::new(report, Stage::Streams);
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..=policy.rounds {
        for ((_, streams), rates) in ways.iter_mut().zip(&mut rates) {
            let rate = images_a_second(streams, &images)?;
            // The first round is to warm up.
            if round > 0 {
                rates.push(rate);
            }
        }
        stage.done(round as f64 / policy.rounds as f64);
    }
    stage.ended();
    let record = |((each, _), own): (&(usize, Vec<Stream>), &Vec<f64>)| {
        let over_one = ratio(own, &rates[0]).filter(|_| *each < threads);
        StreamsRecord {
            streams: threads / each,
            threads: *each,
            images_per_second: median(own).unwrap_or_default(),
            ratio_ci95: over_one.map(|ratio| [ratio.value, ratio.low, ratio.high]),
        }
    };
    Ok(ways.iter().zip(&rates).map(record).collect())
}
