//! Progress on standard error: a bar on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::progress::{Observer, Stage, Warning};

/// Positions of a full bar.
const LENGTH: u64 = 1000;

/// Shows the stage that goes on, and prints warnings.
#[derive(Default)]
pub struct TerminalObserver {
    bar: Option<(Stage, ProgressBar)>,
}

impl Observer for TerminalObserver {
    fn progress(&mut self, stage: Stage, done: f64, detail: &str) {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            let bar = ProgressBar::new(LENGTH);
            let template = "{bar:30} {percent:>3}% {elapsed} {prefix} {msg}";
            bar.set_style(ProgressStyle::with_template(template).expect("a template"));
            bar.set_prefix(stage.to_string());
            self.bar = Some((stage, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position((done * LENGTH as f64) as u64);
            bar.set_message(detail.to_string());
        }
    }

    fn ended(&mut self, _: Stage) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn warning(&mut self, warning: &Warning) {
        let kind = if matches!(warning, Warning::Wrong { .. }) { "warning" } else { "note" };
        let text = format!("{kind}: {warning}");
        match &self.bar {
            Some((_, bar)) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}
