#!/bin/sh
# Every test in one profile, with the seconds of each phase. Fails where there is no Vulkan adapter and none can be installed.
set -eu
cd "$(dirname "$0")/.."
export NODEVICE_SELECT=1
CARGO=${CARGO:-cargo}
times=''

# phase NAME COMMAND...: run it, and note how long it took.
phase() {
    name=$1
    shift
    echo "== $name: $*"
    began=$(date +%s)
    "$@"
    seconds=$(($(date +%s) - began))
    times="$times$(printf '%6d s  %s' "$seconds" "$name")
"
    echo "== $name: $seconds s"
}

examples() {
    for file in examples/*.rs; do
        example=$(basename "$file" .rs)
        # The first lines of an example say how it is run; those that take minutes say so.
        if sed -n 1,5p "$file" | grep -q 'Takes minutes'; then
            echo "-- $example: not run here, it takes minutes"
            continue
        fi
        echo "-- $example"
        "$CARGO" run --release --quiet --example "$example"
    done
}

phase build "$CARGO" build --release --all-targets
phase adapter scripts/adapter.sh
phase tests "$CARGO" test --release --lib --bins --tests
# The table of operations, the guards around outputs and the random graphs once more, with NaN in all memory that holds no value (make test-poison does it for
# every test) and without the images through which kernels read buffers where the adapter is llvmpipe.
phase poison env WGRAD_POISON=1 WGRAD_IMAGES=0 "$CARGO" test --release --test it -- ops:: fuzz:: edges::kernels
phase doc-tests "$CARGO" test --release --doc
phase examples examples
# The half of make accept-spine that takes a minute: the main job, golden cases, bad input, crates and size.
phase accept "$CARGO" test --release --test accept -- --quick
printf '\nseconds by phase:\n%s' "$times"
