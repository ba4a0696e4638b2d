#!/usr/bin/env bash
# PyTorch negates and conjugates lazily: z.conj().imag is a view of z's memory with a negative bit.
# What cannot carry that bit has to refuse or resolve it. tensor.numpy() refuses both bits.
# __dlpack__ refuses the conjugate bit ("Can't export tensors with the conjugate bit set"), but lets
# the negative bit pass: the consumer, even PyTorch itself, gets every value with the wrong sign.
# The C exchange table of DLPack 1.3, by which apache-tvm-ffi imports, lets both bits pass.
#
# Seen with torch 2.15.0, apache-tvm-ffi 0.1.15.post2, numpy 2.4.6; z = [1+2j, 3-4j]:
#     z.conj().imag is [-2.0, 4.0]
#         Tensor.numpy(): RuntimeError
#         numpy.from_dlpack: [2.0, -4.0]
#         torch.from_dlpack: [2.0, -4.0]
#         tvm_ffi.from_dlpack: [2.0, -4.0]
#     z.conj() is [(1-2j), (3+4j)]
#         Tensor.numpy(): RuntimeError
#         numpy.from_dlpack: BufferError
#         torch.from_dlpack: BufferError
#         tvm_ffi.from_dlpack: [(1+2j), (3-4j)]
# Needs Python 3.10 or later with pip and venv, gcc, binutils, PyPI, and 2 GB of disk for a while.
# Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# PyTorch's wheel without NVIDIA's libraries, which are not called here: empty ones stand in.
python3 -m venv "$scratch/python"
python="$scratch/python/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 typing-extensions sympy \
    networkx jinja2 fsspec filelock 'setuptools>=77.0.3' nvidia-cuda-runtime \
    apache-tvm-ffi==0.1.15.post2
"$python" -m pip install --quiet --disable-pip-version-check --no-deps torch==2.15.0
libraries=$(echo "$scratch"/python/lib/python3*/site-packages/torch/lib)
nm -D --undefined-only "$libraries"/*.so* 2>"$scratch/no-symbols" | grep -v libcudart |
    grep -oP ' U \K(cu|nccl|nvrtc|nvshmem)\w+' | sort -u |
    sed 's/.*/int &(void) { return 1; }/' >"$scratch/absent.c"
for name in $(readelf -d "$libraries"/*.so* |
    grep -oP 'NEEDED.*\[\Klib(cu|nv|nccl)(?!dart\.|da\.)[^]]*' | sort -u); do
    case $name in *nvshmem*) version=NVSHMEM ;; *) version=$name ;; esac
    gcc -shared -w -Wl,-soname,"$name" -Wl,--version-script=<(echo "$version { *; };") \
        -o "$libraries/$name" "$scratch/absent.c"
done
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import sys

import numpy as np
import torch
import tvm_ffi

z = torch.tensor([1 + 2j, 3 - 4j])
READERS = {
    "Tensor.numpy()": lambda tensor: tensor.numpy(),
    "numpy.from_dlpack": np.from_dlpack,
    "torch.from_dlpack": torch.from_dlpack,
    "tvm_ffi.from_dlpack": lambda tensor: np.from_dlpack(tvm_ffi.from_dlpack(tensor)),
}
EXPECTED = {
    "z.conj().imag": ["RuntimeError", [2.0, -4.0], [2.0, -4.0], [2.0, -4.0]],
    "z.conj()": ["RuntimeError", "BufferError", "BufferError", [1 + 2j, 3 - 4j]],
}

faults = 0
for name, tensor in {"z.conj().imag": z.conj().imag, "z.conj()": z.conj()}.items():
    print(f"{name} is {tensor.tolist()}")
    for (reader, read), expected in zip(READERS.items(), EXPECTED[name]):
        try:
            seen = read(tensor).tolist()
        except (BufferError, RuntimeError) as error:
            seen = type(error).__name__
        print(f"    {reader}: {seen}")
        faults += seen != expected
sys.exit(1 if faults else 0)
END_OF_PYTHON
OMP_NUM_THREADS=1 "$python" "$scratch/look.py"
