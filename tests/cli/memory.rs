//! Memory: what does not fit is refused, whatever sets the limit, and no file takes more than its kind
//! may have.

use std::process::{Command, Stdio};

use engine::network::built_in;
use engine::runtime::{Running, estimate, graph};
use engine::{Model, Weights};
use kernels::Cpu;

use crate::tune::peak_kib;
use crate::{Folder, RUN_BLOCK, SMALL, assert_refused, start};

/// The program under limits of the shell's `ulimit`.
fn limited(folder: &Folder, limit: &str, args: &str) -> crate::Ran {
    let program = env!("CARGO_BIN_EXE_tuner-for-tests");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit}; exec {program} {args}")]);
    command.current_dir(&folder.0).stdin(Stdio::null()).env_remove("TUNER_ISA").env_remove("TUNER_RESULTS");
    start(command)
}

#[cfg(target_os = "linux")]
#[test]
fn a_network_that_the_limits_of_a_process_have_no_room_for_is_refused() {
    let folder = Folder::new();
    for (limit, name) in [("-v 200000", "(ulimit -v)"), ("-d 100000", "(ulimit -d)")] {
        for args in ["run --model inception_v3 --threads 1", "run --model inception_v3 --threads 2 --batch 8"]
        {
            let parts = ["inception_v3: needs about ", "MiB of memory, expected at most ", name];
            assert_refused(limited(&folder, limit, args), args, &parts);
        }
    }
    let args = "run --model inception_v3 --threads 1";
    let ran = limited(&folder, "-v 2000000", args);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
}

/// MiB that the program has before it prepares a network, and what an estimate may be above the peak
/// of a small network.
#[cfg(target_os = "linux")]
const PROGRAM_MIB: f64 = 9.0;
#[cfg(target_os = "linux")]
const SLACK_MIB: f64 = 16.0;

#[cfg(target_os = "linux")]
#[test]
fn the_estimate_of_a_run_is_what_it_takes() {
    let (folder, cpu) = (Folder::new(), Cpu::detect());
    for (name, args, batch, threads) in [
        ("inception_v3", "", 1, 1),
        ("inception_v3", "", 8, 2),
        ("mixed10", "", 1, 2),
        ("conv2d_bn", "n4h100w100c64k64r3s3", 4, 2),
        ("conv2d_bn", "n1h8w8c1024k1024r3s3", 1, 1),
    ] {
        let model = match name {
            "conv2d_bn" => Model::conv2d_bn(&args.parse().expect("a shape")),
            name => Model::block(name).unwrap_or_else(Model::inception_v3),
        };
        let plain = graph(&model, &Weights::synthetic(&model, 1), batch);
        let (graph, choices) = built_in(&plain, &cpu);
        let running = Running::one(threads, batch);
        let bytes = estimate::bytes(&graph, &choices, &cpu, running).expect("built-in choices are taken");
        let estimate = bytes as f64 / f64::from(1 << 20) + PROGRAM_MIB;
        let shape = if args.is_empty() { format!("--batch {batch}") } else { format!("--shape {args}") };
        let command = format!("run --model {name} --threads {threads} {shape}");
        let peak = peak_kib(folder.command(&command)) as f64 / 1024.0;
        let context = format!("{command}: estimate {estimate:.0} MiB, peak {peak:.0} MiB");
        assert!(peak <= estimate && estimate <= 1.15 * peak + SLACK_MIB, "{context}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_tuning_that_the_address_space_has_no_room_for_is_refused() {
    let folder = Folder::new();
    let args = "--model mixed0 --budget 1 --threads 2";
    assert_refused(limited(&folder, "-v 120000", args), args, &["needs about ", "(ulimit -v)"]);
}

#[cfg(target_os = "linux")]
#[test]
fn runs_end_with_a_result_or_a_line_whatever_the_limit_is() {
    let folder = Folder::new();
    for mb in (80..400).step_by(40) {
        for args in [RUN_BLOCK.to_owned(), format!("run {SMALL} --threads 2"), "list".to_owned()] {
            let ran = limited(&folder, &format!("-v {mb}000"), &args);
            if ran.status != Some(0) {
                assert_refused(ran, &format!("{args} in {mb} MB"), &["error: "]);
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_without_an_end_are_refused_at_the_limit_of_their_kind() {
    let folder = Folder::new();
    for (args, limit) in [
        (format!("run {SMALL} --plan /dev/zero"), "64 MiB of a plan"),
        ("explain x --plan /dev/zero".to_owned(), "64 MiB of a plan"),
        ("merge /dev/zero --out x".to_owned(), "256 MiB of a log"),
        ("tune --shapes /dev/zero".to_owned(), "1 MiB of a list of shapes"),
        ("run --model inception_v3 --labels /dev/zero".to_owned(), "4 MiB of labels"),
    ] {
        folder.refuses(&args, &["/dev/zero", "found more than ", limit]);
    }
    folder.refuses("fid /dev/zero /dev/zero", &["/dev/zero"]);
}
