#!/usr/bin/env bash
# The kernels on this machine's NVIDIA GPU: built, checked, sanitized and timed, in under 8 minutes.
#
#   bash bench/gpu/verify.sh [--out FILE] [--dry-run]
#
# Needs python3 (or $PYTHON) with torch and numpy, and nvcc (or $NDP_NVCC); installs nothing.
# --dry-run needs g++ instead of the GPU and nvcc. Exit codes: see verify.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$(command -v "${PYTHON:-python3}") || {
    echo "error: bench/gpu/verify.sh needs python3 (or PYTHON=...) with torch and numpy" >&2
    exit 3
}
# The tree as the wheel has it, made of links: nothing need be installed.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/ndp_edge"
ln -s "$root"/ndp_edge/* "$root"/{kernels,export,calib,bench} "$tree/ndp_edge/"
# In the tree, because python -m looks into the current folder first.
case $python in /*) ;; *) python=$PWD/$python ;; esac
export NDP_VERIFY_FROM=$PWD PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH}
cd "$tree"
"$python" -m ndp_edge.bench.gpu.verify "$@"
