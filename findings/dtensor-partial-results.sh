#!/usr/bin/env bash
# A reduction of a DTensor over its sharded dimension leaves a result that is still to be reduced
# over the ranks (placement Partial), and operators that do not commute with that reduction have to
# reduce it first. Three do not, and give wrong values without a warning:
# (1) fill_ keeps Partial(sum): every rank fills in the value, and the ranks' sum is N times it.
# Other operators in place refuse ("in-place operations that require placement changes"). So
# cosine_embedding_loss, which fills a tensor with ones inside, is N - 1 too large for each pair of
# target 1 when the features are sharded, evenly or not.
# (2) linalg.vector_norm(., inf) keeps Partial(max): ranks take the norm of their own maxima, of
# which the large negative ones count although another rank's maximum is greater.
# (3) threshold keeps Partial(max) and Partial(min), though it is not monotone.
# full_like, abs().amax() and where give the right values from the same tensors.
#
# Seen with torch 2.15.0 on the CPU, gloo, 3 ranks:
#     fill_(1) of a sum: 3.0, right 1.0; full_like: 1.0
#     cosine_embedding_loss, two targets 1 of four: 1.781, right 0.781
#     vector_norm(inf) of maxima: 9.0, right 2.0; abs().amax(): 2.0
#     threshold(0, 5) of maxima: [5.0, 5.0], right [5.0, 2.0]; where: [5.0, 2.0]
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
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

RANKS = 3


def work(rank, folder):
    logging.disable(logging.WARNING)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank,
                            world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    columns = [Shard(1)]
    first, second = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(5))
    targets = torch.tensor([1.0, 1.0, -1.0, -1.0])
    of_ranks = torch.tensor([[-1.0, -9.0, -2.0], [-3.0, 2.0, 1.0]])  # maxima -1 and 2

    def sums(tensor):
        return distribute_tensor(tensor, mesh, columns).sum(1)

    def maxima():
        return distribute_tensor(of_ranks, mesh, columns).amax(1)

    def where(tensor):
        return torch.where(tensor > 0, tensor, 5.0)

    plain = of_ranks.amax(1)
    loss = F.cosine_embedding_loss(first, second, targets)
    sharded_loss = F.cosine_embedding_loss(distribute_tensor(first, mesh, columns),
                                           distribute_tensor(second, mesh, columns),
                                           distribute_tensor(targets, mesh, [Replicate()]))
    infinite = float("inf")
    rows = [  # what, seen, right, another way to the same
        ("fill_(1) of a sum", sums(first).fill_(1)[0], torch.tensor(1.0),
         "full_like", torch.full_like(sums(first), 1)[0]),
        ("cosine_embedding_loss", sharded_loss, loss, None, None),
        ("vector_norm(inf) of maxima", torch.linalg.vector_norm(maxima(), infinite),
         torch.linalg.vector_norm(plain, infinite), "abs().amax()", maxima().abs().amax()),
        ("threshold(0, 5) of maxima", F.threshold(maxima(), 0.0, 5.0),
         F.threshold(plain, 0.0, 5.0), "where", where(maxima())),
    ]
    faults = 0
    for what, seen, right, other, value in rows:
        seen = seen.full_tensor()
        value = right if value is None else value.full_tensor()
        faults += torch.allclose(seen, right) or not torch.allclose(value, right)
        if rank == 0:
            print(f"{what}: {seen.tolist()}, right {right.tolist()}"
                  + (f"; {other}: {value.tolist()}" if other else ""))
    if rank == 0:
        pathlib.Path(folder, "faults").write_text(str(faults))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=RANKS)
        sys.exit(1 if int(pathlib.Path(folder, "faults").read_text()) else 0)
END_OF_PYTHON
OMP_NUM_THREADS=1 "$python" "$scratch/look.py"
