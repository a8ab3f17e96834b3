#!/usr/bin/env bash
# All that is measured on a GPU, in one command: benchmarks/gpu.sh --data-dir MNIST [--out results/gpu]
# Without a GPU it can be tried with: benchmarks/gpu.sh --device cpu --tiny
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m benchmarks.gpu "$@"
