#!/usr/bin/env bash
# Losses of PyTorch's DTensor have wrong gradients: mse_loss, smooth_l1_loss, huber_loss,
# soft_margin_loss and binary_cross_entropy with reduction="mean" (the default) on tensors that are
# sharded evenly over N ranks give the right loss and N times its gradient. Sharded unevenly, as
# distribute_tensor documents that it may be, the loss is wrong too: each rank takes the mean of its
# own shard, and the mean of these means is called the loss, whatever their sizes; where a rank is
# left without a row (4 rows on 3 ranks are sharded 2, 2, 0), it is NaN. Nothing warns. The same
# loss written out, (x - y).square().mean(), is right, and so are l1_loss and reduction="sum". (It
# seems that sharding is derived from the operators' decompositions, but the operator itself then
# runs on the shard, and divides by the shard's number of elements.)
#
# Seen with torch 2.15.0 on the CPU, gloo, 3 ranks (the gradient's factor: of the first element):
#     6 rows, mse_loss: 2.628 for 2.628, gradient times 3.00
#     6 rows, mse_loss written out: 2.628 for 2.628, gradient times 1.00
#     5 rows, mse_loss: 2.596 for 2.897, gradient times 2.50
#     4 rows, mse_loss: nan for 2.626, gradient times 2.00
# Needs Python 3.10 or later with pip and venv, gcc, binutils, PyPI, and 2 GB of disk for a while.
# Exit code 1: a release does otherwise now.
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
import logging
import pathlib
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

RANKS = 3
LOSSES = {
    "mse_loss": F.mse_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": F.huber_loss,
    "soft_margin_loss": lambda x, y, **options: F.soft_margin_loss(x, y.sign(), **options),
    "binary_cross_entropy": lambda x, y, **options: F.binary_cross_entropy(
        x.sigmoid(), y.sigmoid(), **options),
}
RIGHT = {
    "mse_loss written out": lambda x, y: (x - y).square().mean(),
    "l1_loss": F.l1_loss,
    "mse_loss of sum": lambda x, y: F.mse_loss(x, y, reduction="sum"),
}


def value_and_gradient(loss, x, y, mesh):
    if mesh is not None:
        x, y = (distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in (x, y))
    x = x.detach().requires_grad_()
    value = loss(x, y)
    value.backward()
    if mesh is None:
        return value.detach(), x.grad
    return value.detach().full_tensor(), x.grad.full_tensor()


def work(rank, folder):
    logging.disable(logging.WARNING)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank,
                            world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    faults = 0
    for rows in (6, 5, 4):
        x, y = torch.randn(2, rows, 7, generator=torch.Generator().manual_seed(rows))
        for name, loss in {**LOSSES, **RIGHT}.items():
            value, gradient = value_and_gradient(loss, x, y, mesh)
            right, right_gradient = value_and_gradient(loss, x, y, None)
            same_value = torch.allclose(value, right, rtol=1e-4)
            same_gradient = torch.allclose(gradient, right_gradient, rtol=1e-3, atol=1e-6)
            if name in RIGHT:
                faults += not (same_value and same_gradient)
            else:
                faults += same_gradient or same_value != (rows % RANKS == 0)
            if rank == 0:
                times = (gradient.flatten()[0] / right_gradient.flatten()[0]).item()
                print(f"{rows} rows, {name}: {value:.3f} for {right:.3f}, "
                      f"gradient times {times:.2f}")
    if rank == 0:
        pathlib.Path(folder, "faults").write_text(str(faults))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=RANKS)
        sys.exit(1 if int(pathlib.Path(folder, "faults").read_text()) else 0)
END_OF_PYTHON
OMP_NUM_THREADS=1 "$python" "$scratch/look.py"
