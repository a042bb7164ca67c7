//! Images through a network, a few at a time: what they are as text, and their results in a file.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use engine::network::Activation;
use engine::runtime::{Ran, Running, Stream, Work, are_worth_splitting, streams};
use engine::{Model, Plan};

use crate::cli::classes::{Classes, NotFinite};
use crate::cli::images::{Image, Seen};
use crate::cli::interrupt::Interrupt;
use crate::cli::npy::{bytes, header};
use crate::cli::results::{Columns, Content, Place, ResultFile, Row};
use crate::cli::{Failure, Images, Meter, print_notes, thread_count};
use crate::report::{count, short};

/// Why a run has ended before its end, and what is left of its results.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {note}")]
pub struct Stopped {
    pub error: Failure,
    note: String,
}

/// What is done with the results of images.
pub struct Inference<'a> {
    pub model: &'a Model,
    pub images: &'a Images<'a>,
    pub labels: &'a [String],
    /// What to know of them.
    pub labels_note: Option<&'a str>,
    /// Features in place of the last output.
    pub features: bool,
    /// Classes of each image.
    pub top: usize,
    pub prints_text: bool,
    pub output: Output<'a>,
    /// Images that cannot be read do not end the run.
    pub skip_bad: bool,
}

/// Where results go.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    None,
    /// Standard output has the array and nothing else.
    Stdout,
    File(Place<'a>),
}

/// How images are run.
#[derive(Clone, Copy)]
pub struct Way {
    pub streams: usize,
    /// Of each stream.
    pub threads: usize,
    pub loaders: usize,
    /// Images of an inference.
    pub batch: usize,
}

/// How many inferences run at the same time, as the user says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamsArg {
    Auto,
    Count(u16),
}

impl StreamsArg {
    /// Reads `auto` or a number.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = thread_count(text).map_err(|error| error.replace("expected", "expected auto or"));
        count.map(Self::Count)
    }
}

impl Way {
    /// That of images by a plan, whose streams are those that give the most images a second; without
    /// a measurement it is one thread each. With a bound on memory there is one stream, and one image
    /// is loaded at a time.
    pub fn of(images: &Images, plan: &Plan, asked: StreamsArg, is_bounded: bool) -> Self {
        let Plan { batch, threads, .. } = *plan;
        let measured = plan.fastest_streams();
        let [fastest, threads_each] =
            measured.map_or([threads, 1], |record| [record.streams, record.threads]);
        let is_few = !are_worth_splitting(images.count(), batch, fastest);
        let [streams, threads_each] = match asked {
            StreamsArg::Count(count) => [count.into(), (threads / usize::from(count)).max(1)],
            StreamsArg::Auto if is_bounded || is_few => [1, threads],
            StreamsArg::Auto => [fastest, threads_each],
        };
        let loaders = if images.are_files() && !is_bounded { threads.min(images.count()) } else { 1 };
        Self { streams, threads: threads_each, loaders, batch }
    }

    /// As the estimate of memory takes it, of images that `threads` prepare the network for.
    pub fn running(self, threads: usize, images: &Images) -> Running {
        let Self { streams, threads: threads_each, loaders, .. } = self;
        Running { threads, streams, threads_each, loaders, images: images.count() }
    }

    /// The streams, of a network that all threads have prepared.
    pub fn split(self, all: Stream) -> Result<Vec<Stream>, Failure> {
        match self.streams {
            1 => Ok(vec![all]),
            count => Ok(streams(&all.network, count, self.threads)?),
        }
    }
}

/// The results of a run, as they come.
struct Sink<'a> {
    inference: &'a Inference<'a>,
    /// The axes of an image's values.
    shape: Vec<usize>,
    file: Option<ResultFile>,
    bad: Bad,
    out: &'a mut dyn Write,
}

/// Images that could not be read.
#[derive(Default)]
struct Bad {
    first: String,
    count: usize,
}

impl Inference<'_> {
    /// Runs all images on the streams that `prepare` gives while the first of them are loaded.
    /// `before` is done when the first results are there.
    ///
    /// # Errors
    /// Of `prepare`; of an image, unless bad ones are skipped; of a file; an [`Interrupted`] after a
    /// signal.
    ///
    /// [`Interrupted`]: crate::cli::interrupt::Interrupted
    pub fn run(
        &self,
        Way { streams, loaders, batch, .. }: Way,
        mut seen: Seen,
        prepare: impl FnOnce() -> Result<Vec<Stream>, Failure>,
        before: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
        out: &mut dyn Write,
    ) -> Result<Vec<Stream>, Failure> {
        let interrupt = Interrupt::watch();
        let (columns, images) = (self.columns(), self.images);
        let (file, done) = match self.output {
            Output::File(place) => {
                let name = |number| images.name(number);
                let (file, done) = ResultFile::open(place, &columns, &name)?;
                (Some(file), done)
            }
            _ => (None, 0),
        };
        let mut sink = Sink { inference: self, shape: columns.shape, file, bad: Bad::default(), out };
        let left = images.count() - done;
        let work = Work { images: left, loaders, batch, streams };
        let (mut rate, mut before) = (Rate::new("images".to_owned(), left), Some(before));
        // On a terminal the results show how far it is.
        let shows_itself = self.prints_text && std::io::stdout().is_terminal();
        let mut done_now = 0;
        if left == 0 {
            print_notes(&[format!("the results of all {} are there", count(done, "image"))]);
        }
        let each = |ran: Ran<Image>| {
            // Of a run that fails at once, the error is all that is told.
            if let Some(before) = before.take().filter(|_| !sink.fails_at_once(&ran)) {
                before(sink.out)?;
                print_notes(&self.labels_note.map(str::to_owned));
                sink.begin()?;
            }
            ran.images.iter().try_for_each(|image| seen.add(image))?;
            done_now += ran.images.len();
            if !shows_itself {
                rate.add(ran.images.len());
            }
            sink.add(ran)
        };
        let ran = work.run(interrupt.flag(), |number| images.load(done + number), prepare, each);
        let is_done = done_now == left;
        let ran = ran.and_then(|streams| match interrupt.check() {
            Err(interrupted) if !is_done => Err(interrupted.into()),
            _ => Ok(streams),
        });
        let Sink { file, bad, .. } = sink;
        let bad_note = bad.note(left);
        match ran {
            Ok(_) if done == 0 && bad.count == left => {
                file.into_iter().for_each(ResultFile::discard);
                Err(bad_note.unwrap_or_default().into())
            }
            Ok(streams) => {
                file.map_or(Ok(()), ResultFile::finish)?;
                print_notes(seen.finish(images)?.iter().chain(&bad_note));
                Ok(streams)
            }
            Err(error) if error.is::<NotFinite>() => {
                file.into_iter().for_each(ResultFile::discard);
                Err(error)
            }
            Err(error) => match file.and_then(ResultFile::stop) {
                Some(note) => Err(Stopped { error, note }.into()),
                None => Err(error),
            },
        }
    }

    fn columns(&self) -> Columns {
        let Self { model, images, labels, features, top, .. } = self;
        let node = model.features.filter(|_| *features).unwrap_or(model.output);
        let shape = match model.nodes[node].shape {
            [1, 1, channels] => vec![channels],
            shape => shape.to_vec(),
        };
        let content = match model.has_top() && !features {
            true => {
                let is_probability = matches!(model.activation(), Activation::Softmax | Activation::Sigmoid);
                let unit = if is_probability { "probability" } else { "logit" };
                Content::Classes { labels: labels.to_vec(), top: *top, unit }
            }
            false => Content::All(if shape.len() == 1 { "features" } else { "values" }),
        };
        Columns { rows: images.count(), shape, content }
    }
}

impl Sink<'_> {
    fn begin(&mut self) -> Result<(), Failure> {
        if !matches!(self.inference.output, Output::Stdout) {
            return Ok(());
        }
        let shape = [&[self.inference.images.count()], &self.shape[..]].concat();
        Ok(self.out.write_all(&header(&shape))?)
    }

    /// Whether the first image of a batch ends the run.
    fn fails_at_once(&self, ran: &Ran<Image>) -> bool {
        let is_bad = ran.images.first().is_some_and(|image| image.values.is_err());
        is_bad && !self.inference.skip_bad || ran.checked.as_ref().is_err_and(|error| error.image == 0)
    }

    fn add(&mut self, Ran { images, output, features, checked }: Ran<Image>) -> Result<(), Failure> {
        let values = features.filter(|_| self.inference.features).unwrap_or(output);
        let size: usize = self.shape.iter().product();
        let mut rows = values.chunks_exact(size.max(1)).enumerate();
        for Image { name, values, .. } in images {
            let row = match values {
                Ok(_) => {
                    let (number, row) = rows.next().unwrap_or_default();
                    match &checked {
                        Err(error) if error.image == number => return Err(NotFinite::of(error, &name).into()),
                        _ => Ok(row),
                    }
                }
                Err(error) if self.inference.skip_bad => Err(self.bad.add(error)),
                Err(error) => return Err(error),
            };
            self.row(&name, row)?;
        }
        Ok(())
    }

    fn row(&mut self, image: &str, row: Result<&[f32], String>) -> Result<(), Failure> {
        let Inference { model, labels, features, top, prints_text, output, .. } = self.inference;
        let top = (model.has_top() && !features).then_some(*top);
        if *prints_text && top != Some(0) {
            match &row {
                Ok(values) => {
                    let (shape, activation) = (&self.shape[..], model.activation());
                    Classes { labels, top, shape, activation }.print(values, image, self.out)?;
                }
                Err(error) => writeln!(self.out, "{image}: bad: {error}")?,
            }
        }
        if matches!(output, Output::Stdout) {
            let none = || vec![f32::NAN; self.shape.iter().product()];
            let values = row.as_ref().map_or_else(|_| none(), |values| values.to_vec());
            self.out.write_all(&bytes(&values))?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write(&Row { image, values: row.as_ref().copied().map_err(String::as_str) })
    }
}

impl Bad {
    fn add(&mut self, error: Failure) -> String {
        let text = error.to_string();
        if self.count == 0 {
            self.first.clone_from(&text);
        }
        self.count += 1;
        text
    }

    /// What to tell of them, of so many images.
    fn note(&self, images: usize) -> Option<String> {
        let Self { first, count: bad } = self;
        (*bad > 0).then(|| format!("{bad} of {} skipped, the first: {first}", count(images, "image")))
    }
}

/// How many images are done, and how fast.
pub struct Rate {
    what: String,
    meter: Meter,
    start: Instant,
    done: usize,
    all: usize,
}

/// Seconds after which the first progress is shown.
const QUIET_S: f64 = 1.0;

impl Rate {
    /// Of so many images; `what` is shown.
    pub fn new(what: String, all: usize) -> Self {
        Self { what, meter: Meter::default(), start: Instant::now(), done: 0, all }
    }

    /// So many more are done.
    pub fn add(&mut self, images: usize) {
        self.done += images;
        let seconds = self.start.elapsed().as_secs_f64();
        if seconds < QUIET_S {
            return;
        }
        let rate = self.done as f64 / seconds;
        let left = (self.all - self.done) as f64 / rate;
        let detail = format!("{} of {}, {} a second, {left:.0} s left", self.done, self.all, short(rate));
        self.meter.show(&self.what, self.done as f64 / self.all as f64, &detail);
    }
}
