#!/usr/bin/env bash
# Fuzzes each parser for some seconds, one after the other: tests/fuzz/run.sh SECONDS [TARGET...]
#
# Inputs that cover more code are kept in $FUZZ_STATE/corpus/TARGET, where the next run begins; those that go
# wrong are written to $FUZZ_STATE/artifacts/TARGET. What libFuzzer says last of each target is printed. The
# exit status is 1 if a target has found something. With 0 seconds the targets are only built.
set -euo pipefail
seconds="${1:?usage: tests/fuzz/run.sh SECONDS [TARGET...]}"
shift
cd "$(dirname "$0")"
state="${FUZZ_STATE:-${TMPDIR:-/tmp}/tuner-fuzz}"
mkdir -p "$state"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$state/target}"
[ $# -gt 0 ] || set -- $(ls corpus)
RUSTC_WRAPPER="$PWD/rustc.sh" cargo build --quiet --release "${@/#/--bin=}"
[ "$seconds" != 0 ] || exit 0
# Parsers read files, which should not be on a disk.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
status=0
for target in "$@"; do
    kept="$state/corpus/$target" found="$state/artifacts/$target" log="$state/$target.log"
    mkdir -p "$kept" "$found"
    options=(-max_total_time="$seconds" -timeout=1 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536)
    options+=(-print_final_stats=1 -artifact_prefix="$found/")
    [ ! -f "dictionaries/$target" ] || options+=(-dict="dictionaries/$target")
    # A finding ends a process, and another goes on.
    options+=(-fork=1 -ignore_crashes=1 -ignore_timeouts=1 -ignore_ooms=1)
    nice -n 10 "$CARGO_TARGET_DIR/release/$target" "${options[@]}" "$kept" "corpus/$target" >"$log" 2>&1 || true
    printf '%-18s %s\n' "$target" "$(grep '^#' "$log" | tail -1)"
    [ -z "$(ls -A "$found")" ] || status=1
done
exit "$status"
