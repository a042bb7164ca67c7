//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use engine::runtime::limits::Limits;

use crate::cli::infer::Stopped;
use crate::cli::interrupt::{self, Interrupted};
use crate::cli::{
    Failure, TuneArgs, bench, check, compare, explain, fid, list, machine, manual, merge, messages, peak,
    plans, report, run, shapes, spot, stdin, transfer, tune,
};

/// Convolution kernels for CPUs: measured, planned, run.
///
/// Without a command it tunes: `tuner --model MODEL`.
#[derive(Debug, Parser)]
#[command(name = "tuner", version = env!("TUNER_VERSION"), args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    tune: TuneArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure all kernels on this machine and write the plan
    Tune(TuneArgs),
    /// Run the network on images by a plan
    Run(run::RunArgs),
    /// Compute the Fréchet Inception Distance of two folders of images
    Fid(fid::FidArgs),
    /// Check every kernel against the oracle, or against given tensors
    Check(check::CheckArgs),
    /// Measure every kernel and tuning on one shape
    Bench(bench::BenchArgs),
    /// List the kernels and whether this machine has them
    #[command(visible_alias = "kernels")]
    List(list::ListArgs),
    /// List the distinct problems of a model
    #[command(visible_alias = "problems")]
    Shapes(shapes::ShapesArgs),
    /// List the plans of this machine
    Plans(plans::PlansArgs),
    /// Say why a layer has its kernel
    Explain(explain::ExplainArgs),
    /// Draw a plan and its measurements
    Report(report::ReportArgs),
    /// Measure some entries of a plan again, and say whether they hold
    #[command(visible_alias = "recheck")]
    Spot(spot::SpotArgs),
    /// Unite logs of measurements
    #[command(visible_alias = "merge-logs")]
    Merge(merge::MergeArgs),
    /// Say whether B is faster or slower than A: plans, logs, folders, or two builds in turn
    Compare(compare::CompareArgs),
    /// Say what the choices of one machine cost on another
    Transfer(transfer::TransferArgs),
    /// Measure the fused multiply-adds that the cores do in a second
    Peak(peak::PeakArgs),
    /// Say what this machine is and can do, and how quiet it is
    Machine(machine::MachineArgs),
    /// Print the completions of a shell
    Completions(manual::CompletionsArgs),
    /// Write the manual pages, one a command
    Man(manual::ManArgs),
}

/// Exit statuses: something was found to be wrong; the input is wrong.
const WRONG: u8 = 1;
pub const FAILED: u8 = 2;

/// The whole program, on this process's arguments.
pub fn main() -> ExitCode {
    kernels::arch::pages::return_large_blocks();
    interrupt::handle();
    if Limits::default().mapped().is_some() {
        kernels::arch::pages::share_heap();
    }
    let status = run_command();
    stdin::remove();
    status
}

fn run_command() -> ExitCode {
    let mut out = Stdout { closed: false };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            messages::line(in_one_line(&error));
            return ExitCode::from(FAILED);
        }
        Err(help) => return ended(out.unless_closed(help.print()).map(|()| true).map_err(Failure::from)),
    };
    let copied = stdin::copy().map_err(|error| format!("standard input: cannot read: {error}").into());
    let result = copied.and_then(|()| dispatch(cli, &mut out));
    ended(result.and_then(|right| Ok(out.flush().map(|()| right)?)))
}

/// clap's own first paragraph, its tips and usage left out.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    format!("{} (see --help)", first.join(" "))
}

/// Whether words, of which the first is the program's name, are a command; the message if not.
pub fn check_words(words: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    match Cli::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(in_one_line(&error)),
        _ => Ok(()),
    }
}

/// The exit status, after the message that belongs to it.
fn ended(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        Err(failure) => {
            messages::error(&failure);
            let cause = failure.downcast_ref::<Stopped>().map_or(&failure, |stopped| &stopped.error);
            let interrupted = cause.downcast_ref::<Interrupted>();
            ExitCode::from(interrupted.map_or(FAILED, |interrupted| interrupted.status()))
        }
    }
}

/// Standard output. Once its reader has gone, as `head` does, the rest is dropped: what a command
/// finds, and so its exit status, does not depend on who reads it. Other errors name it.
struct Stdout {
    closed: bool,
}

impl Stdout {
    fn unless_closed<T: Default>(&mut self, done: io::Result<T>) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(T::default())
            }
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("standard output: cannot write: {error}")))
            }
            done => done,
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.closed {
            let written = self.unless_closed(io::stdout().write(bytes))?;
            if !self.closed {
                return Ok(written);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            Ok(())
        } else {
            let done = io::stdout().flush();
            self.unless_closed(done)
        }
    }
}

fn dispatch(cli: Cli, out: &mut (dyn Write + Send)) -> Result<bool, Failure> {
    match cli.command {
        None => tune::tune(&cli.tune, out)?,
        Some(Command::Tune(args)) => tune::tune(&args, out)?,
        Some(Command::Run(args)) => run::run(&args, out)?,
        Some(Command::Fid(args)) => fid::fid(&args, out)?,
        Some(Command::Check(args)) => return check::check(&args, out),
        Some(Command::Bench(args)) => return bench::bench(&args, out),
        Some(Command::List(args)) => list::list(&args, out)?,
        Some(Command::Shapes(args)) => shapes::shapes(&args, out)?,
        Some(Command::Plans(args)) => plans::plans(&args, out)?,
        Some(Command::Explain(args)) => explain::explain(&args, out)?,
        Some(Command::Report(args)) => report::report(&args, out)?,
        Some(Command::Spot(args)) => return spot::spot(&args, out),
        Some(Command::Merge(args)) => merge::merge(&args, out)?,
        Some(Command::Compare(args)) => return compare::compare(&args, out),
        Some(Command::Transfer(args)) => transfer::transfer(&args, out)?,
        Some(Command::Peak(args)) => peak::peak(&args, out)?,
        Some(Command::Machine(args)) => machine::machine(&args, out)?,
        Some(Command::Completions(args)) => manual::completions(&args, Cli::command(), out)?,
        Some(Command::Man(args)) => manual::man(&args, Cli::command(), out)?,
    }
    Ok(true)
}
