#!/usr/bin/env bash
# Fuzzes each parser for some seconds, one after the other: tests/fuzz/run.sh SECONDS [TARGET...]
#
# Inputs that cover more code are kept in $FUZZ_STATE/corpus/TARGET, where the next run begins; those that go
# wrong are written to $FUZZ_STATE/artifacts/TARGET, with what libFuzzer printed. The exit status is 1 if there
# are any. With 0 seconds the targets are only built.
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
for target in "$@"; do
    kept="$state/corpus/$target" found="$state/artifacts/$target" log="$state/$target.log"
    mkdir -p "$kept" "$found"
    options=(-timeout=1 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536 -print_final_stats=1)
    options+=(-artifact_prefix="$found/")
    [ ! -f "dictionaries/$target" ] || options+=(-dict="dictionaries/$target")
    end=$((SECONDS + seconds)) runs=0
    # A finding ends a process; another goes on.
    while left=$((end - SECONDS)) && [ $left -gt 0 ]; do
        nice -n 10 "$CARGO_TARGET_DIR/release/$target" -max_total_time=$left "${options[@]}" "$kept" \
            "corpus/$target" >"$log" 2>&1 || cp "$log" "$found/log-$SECONDS"
        count="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)"
        runs=$((runs + ${count:-0}))
    done
    printf '%-18s %9d executions, %d findings\n' "$target" "$runs" "$(find "$found" -name 'log-*' | wc -l)"
done
[ -z "$(find "$state/artifacts" -name 'log-*')" ]
