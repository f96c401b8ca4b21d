#!/bin/sh
# Makes stage.zig and the SDK for C into a core module: build.sh OUT. `zig` is 0.17.0, for example
# of `pip install ziglang==0.17.0`.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp stage.zig "$work"
zig translate-c -target wasm32-wasi -lc ../../c/sluicebox.h > "$work/sluicebox.zig"
zig build-exe "$work/stage.zig" ../../c/sluicebox.c ../../c/sluicebox_wasm.c -I ../../c \
    -target wasm32-wasi -mexec-model=reactor -fno-entry -rdynamic -OReleaseSmall -lc \
    --stack 1048576 \
    -femit-bin="$1"
