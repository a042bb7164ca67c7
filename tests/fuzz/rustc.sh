#!/usr/bin/env bash
# Stands before rustc, as Cargo's RUSTC_WRAPPER: adds counters of coverage to the crates that parse, and to no
# others. libFuzzer reads the counters.
set -euo pipefail
parsers=" engine tuner fuzz hdf5_pure safetensors serde_json rawzip fdeflate weezl png zune_jpeg image "
parsers+="image_webp tiff gif fax "
name="" before=""
for argument in "$@"; do
    [ "$before" != --crate-name ] || name="$argument"
    before="$argument"
done
[[ -n "$name" && "$parsers" == *" $name "* ]] || exec "$@"
flags=(-Cpasses=sancov-module --cfg fuzzing -Coverflow-checks=yes -Cdebug-assertions=yes)
for option in level=4 inline-8bit-counters trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
exec "$@" "${flags[@]}"
