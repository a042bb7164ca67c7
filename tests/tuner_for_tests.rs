//! The command line as a program of this package, so that its tests can start it.

#[global_allocator]
static HEAP: tuner::cli::Heap = tuner::cli::Heap;

fn main() -> std::process::ExitCode {
    tuner::cli::main()
}
