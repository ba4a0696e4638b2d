#!/usr/bin/env bash
# The CUDA simulator of numba-cuda, by which kernels are debugged and tested without a GPU, computes
# some intrinsics otherwise than they are documented, for ordinary operands and without a warning:
# popc of a negative integer counts the bits of its absolute value ("the number of set bits in x"),
# clz of a 64-bit integer counts as if it had 32 bits, cbrt of a negative number is not a number,
# and fma rounds its product ("fused multiply-add"). The simulator's page says of ffs alone that it
# takes 32 bits.
#
# Seen with numba-cuda 0.30.4, numba 0.68.1, numpy 2.4.6:
#     popc(int32(-1)): 1, documented 32
#     popc(int64(-2)): 1, documented 63
#     clz(uint64(2^40)): 0, documented 23
#     clz(uint64(1)): 31, documented 63
#     cbrt(float64(-27)): nan, documented -3.0
#     fma(1+2^-30, 1-2^-30, -1): 0.0, documented -8.673617379884035e-19
# Needs Python 3.11 or later with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" numba-cuda==0.30.4 numba==0.68.1 numpy==2.4.6
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import sys
import warnings

import numpy as np
from numba import cuda

warnings.simplefilter("ignore")  # of small grids


@cuda.jit
def popc(out, x):
    out[0] = cuda.popc(x)


@cuda.jit
def clz(out, x):
    out[0] = cuda.clz(x)


@cuda.jit
def cbrt(out, x):
    out[0] = cuda.cbrt(x)


@cuda.jit
def fma(out, x, y, z):
    out[0] = cuda.fma(x, y, z)


CASES = [
    ("popc(int32(-1))", popc, np.int64, [np.int32(-1)], 1, 32),
    ("popc(int64(-2))", popc, np.int64, [np.int64(-2)], 1, 63),
    ("popc(uint32(7))", popc, np.int64, [np.uint32(7)], 3, 3),
    ("clz(uint64(2^40))", clz, np.int64, [np.uint64(2**40)], 0, 23),
    ("clz(uint64(1))", clz, np.int64, [np.uint64(1)], 31, 63),
    ("clz(uint32(1))", clz, np.int64, [np.uint32(1)], 31, 31),
    ("cbrt(float64(-27))", cbrt, np.float64, [np.float64(-27)], np.nan, -3.0),
    ("fma(1+2^-30, 1-2^-30, -1)", fma, np.float64,
     [np.float64(1 + 2.0**-30), np.float64(1 - 2.0**-30), np.float64(-1)], 0.0, -(2.0**-60)),
]

faults = 0
for name, kernel, kind, operands, expected, documented in CASES:
    out = np.zeros(1, kind)
    kernel[1, 1](out, *operands)
    print(f"{name}: {out[0]}, documented {documented}")
    faults += not np.array_equal(out[0], expected, equal_nan=True)
sys.exit(1 if faults else 0)
END_OF_PYTHON
NUMBA_ENABLE_CUDASIM=1 PYTHONPATH="$scratch/packages" python3 "$scratch/look.py"
