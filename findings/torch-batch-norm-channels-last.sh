#!/usr/bin/env bash
# Training-mode batch_norm of PyTorch on the CPU takes wrong statistics of a long channels_last
# batch in float32: beyond 2^24 values a channel, each thread's running sum is too large for the
# next value to count, so the mean stops growing, the variance is taken around that wrong mean, and
# the "normalised" output and the running statistics are off by tens of per cent, differently for
# each number of threads. The same tensor in contiguous layout is normalised rightly, and so it is
# by instance_norm; nothing in the documentation of batch_norm or of memory formats says that the
# layout may change the result so. A 2-d batch [rows, channels] goes the same way as channels_last.
#
# Seen with torch 2.15.0, x uniform in [1, 2) of shape (64, 2, 512, 1024): 33554432 values a
# channel, whose mean is 1.500 and variance 0.0833 in float64:
#     contiguous, 1 thread: mean 1.500, variance 0.0833; output's mean 0.000, deviation 1.000
#     channels_last, 1 thread: mean 1.000, variance 0.3163; output's mean 0.889, deviation 0.513
#     channels_last, 2 threads: mean 1.667, variance 0.1082; output's mean -0.507, deviation 0.878
# Needs Python 3.10 or later with pip and venv, gcc, binutils, PyPI, 3 GB of memory and, for a
# while, of disk. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# PyTorch's wheel without NVIDIA's libraries, which are not called here: empty ones stand in.
python3 -m venv "$scratch/python"
python="$scratch/python/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 typing-extensions sympy \
    networkx jinja2 fsspec filelock 'setuptools>=77.0.3' nvidia-cuda-runtime
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

import torch
import torch.nn.functional as F

x = torch.rand(64, 2, 512, 1024, generator=torch.Generator().manual_seed(0)) + 1
faults = 0
for layout, threads in (("contiguous", 1), ("contiguous", 2), ("channels_last", 1),
                        ("channels_last", 2)):
    torch.set_num_threads(threads)
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    given = x.to(memory_format=formats[layout])
    assert torch.equal(given, x)
    means, variances = torch.zeros(2), torch.ones(2)
    output = F.batch_norm(given, means, variances, training=True, momentum=1.0)
    output = output[:, 0].double()
    mean, variance = means[0].item(), variances[0].item()
    print(f"{layout}, {threads} thread{'s' * (threads > 1)}: mean {mean:.3f}, variance "
          f"{variance:.4f}; output's mean {output.mean():.3f}, deviation {output.std():.3f}")
    right = abs(mean - 1.5) < 0.001 and abs(variance - 1 / 12) < 0.001
    faults += right != (layout == "contiguous")
sys.exit(1 if faults else 0)
END_OF_PYTHON
"$python" "$scratch/look.py"
