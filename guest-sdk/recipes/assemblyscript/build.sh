#!/bin/sh
# Makes stage.ts and sluicebox.ts into a core module: build.sh OUT. Takes Node 20 with npm, which
# fetches the compiler that package-lock.json pins, into WORK if that is set.
set -eu
cd "$(dirname "$0")"
work=${WORK:-$PWD}
[ "$work" = "$PWD" ] || cp package.json package-lock.json "$work"
[ -d "$work/node_modules" ] || (cd "$work" && npm ci --silent --no-fund --no-audit)
"$work/node_modules/.bin/asc" stage.ts --runtime minimal --use abort= -O3 --outFile "$1"
