//! The command line as a program of this package, so that its tests can start it.

fn main() -> std::process::ExitCode {
    tuner::cli::main()
}
