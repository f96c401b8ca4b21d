#!/bin/sh
# Makes stage.cpp and the SDK for C into a core module: build.sh OUT. `zig` is 0.17.0, for example
# of `pip install ziglang==0.17.0`.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="--target=wasm32-wasi -O2 -fno-sanitize=undefined -ffunction-sections -I ../../c"
zig cc $flags -std=gnu17 -c ../../c/sluicebox.c -o "$work/sluicebox.o"
zig cc $flags -std=gnu17 -c ../../c/sluicebox_wasm.c -o "$work/sluicebox_wasm.o"
zig c++ $flags -std=c++20 -fno-exceptions -mexec-model=reactor -Wl,--gc-sections \
    -Wl,-z,stack-size=1048576 -s \
    stage.cpp "$work/sluicebox.o" "$work/sluicebox_wasm.o" -o "$1"
