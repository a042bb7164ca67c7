//! Progress on standard error: a bar on a terminal, else a line every ten seconds.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what is done of a number of things.
pub struct Progress {
    what: &'static str,
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
}

struct Lines {
    start: Instant,
    printed: Instant,
}

impl Progress {
    /// Of `total` things.
    pub fn new(total: usize, what: &'static str) -> Self {
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}").expect("a template");
        bar.set_style(style);
        bar.set_message(what);
        let now = Instant::now();
        let lines = (!stderr().is_terminal()).then(|| Mutex::new(Lines { start: now, printed: now }));
        Self { what, bar, lines }
    }

    /// One more is done.
    pub fn step(&self) {
        self.bar.inc(1);
        let Some(mut lines) = self.lines.as_ref().and_then(|lines| lines.lock().ok()) else { return };
        if lines.printed.elapsed() >= INTERVAL {
            lines.printed = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{done} of {total} {}, {:.0} s", self.what, lines.start.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
