//! The program; all of it is in the library.

#[global_allocator]
static HEAP: tuner::cli::Heap = tuner::cli::Heap;

fn main() -> std::process::ExitCode {
    tuner::cli::main()
}
