//! Progress on standard error: a bar on a terminal, elsewhere a line every ten seconds.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::bench::{Observer, Stage, Warning};
use crate::cli::messages;

/// Positions of a full bar.
const LENGTH: u64 = 1000;

/// How often a line is printed where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far something is.
pub struct Meter {
    /// On a terminal; its prefix is what is shown.
    bar: Option<ProgressBar>,
    is_terminal: bool,
    start: Instant,
    printed: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        let now = Instant::now();
        Self { bar: None, is_terminal: stderr().is_terminal(), start: now, printed: now }
    }
}

impl Meter {
    /// `what` is so far done, from 0 to 1; `detail` says at what it is.
    pub fn show(&mut self, what: &str, done: f64, detail: &str) {
        if !self.is_terminal {
            self.line(Instant::now(), what, done, detail).iter().for_each(messages::line);
            return;
        }
        self.bar.take_if(|bar| bar.prefix() != what);
        let bar = self.bar.get_or_insert_with(|| {
            let template = "{bar:30} {percent:>3}% {elapsed} {prefix} {msg}";
            let style = ProgressStyle::with_template(template).expect("a template");
            let bar = ProgressBar::new(LENGTH).with_style(style).with_finish(ProgressFinish::AndClear);
            bar.with_prefix(what.to_string())
        });
        bar.set_position((done * LENGTH as f64) as u64);
        bar.set_message(detail.to_string());
    }

    /// The line that is due.
    fn line(&mut self, now: Instant, what: &str, done: f64, detail: &str) -> Option<String> {
        (now - self.printed >= INTERVAL).then(|| {
            self.printed = now;
            let (seconds, percent) = ((now - self.start).as_secs(), done * 100.0);
            format!("progress: {seconds} s, {what} {percent:.0}% {detail}").trim_end().to_string()
        })
    }
}

impl Observer for Meter {
    fn progress(&mut self, stage: Stage, done: f64, detail: &str) {
        self.show(&stage.to_string(), done, detail);
    }

    fn ended(&mut self, _: Stage) {
        self.bar = None;
    }

    fn warning(&mut self, warning: &Warning) {
        let is_note = !matches!(warning, Warning::Wrong { .. } | Warning::Busy { .. });
        let print = || if is_note { messages::note(warning) } else { messages::warning(warning) };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_a_line_is_due_every_ten_seconds() {
        let mut meter = Meter::default();
        let start = meter.start;
        let mut line = |second| {
            let now = start + Duration::from_secs(second);
            meter.line(now, "candidates", second as f64 / 100.0, "n1h9w9c16k24r3s3")
        };
        let lines: Vec<String> = (0..30).filter_map(&mut line).collect();
        let expected = [
            "progress: 10 s, candidates 10% n1h9w9c16k24r3s3",
            "progress: 20 s, candidates 20% n1h9w9c16k24r3s3",
        ];
        assert_eq!(lines, expected);
    }
}
