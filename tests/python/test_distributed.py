"""Two processes on the host (gloo): DDP, FSDP2 and DTensor give what one process gives."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import spion
import spion.torch as st

RANKS, BATCH, HEADS, LENGTH, WIDTH, BLOCK = 2, 4, 4, 64, 16, 32
PATTERN = "10\n11\n"


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        pattern = spion.Pattern.from_text(PATTERN, block=BLOCK)
        self.attention = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
        return self.attention(q, k, v).transpose(1, 2).flatten(2)


def case():
    torch.manual_seed(0)
    model = nn.Sequential(Layer(), Layer())
    return model, torch.randn(BATCH, LENGTH, HEADS * WIDTH)


def gradients_of_one_process():
    model, x = case()
    model(x).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def ddp(rank):
    model, x = case()
    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped(x.chunk(RANKS)[rank]).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients_of_one_process()[name])


def fsdp(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (RANKS,))
    model, x = case()
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model(x.chunk(RANKS)[rank]).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor(), gradients_of_one_process()[name])


def dtensor(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    st.register_sharding()
    mesh = init_device_mesh("cpu", (RANKS,))
    pattern = spion.Pattern.from_text(PATTERN, block=BLOCK)
    torch.manual_seed(0)
    q, k, v, d_o = (torch.randn(BATCH, HEADS, LENGTH, WIDTH) for _ in range(4))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wanted = st.attention(*leaves, pattern)
    wanted_gradients = torch.autograd.grad(wanted, leaves, d_o)
    for dimension, heads in ((0, HEADS), (1, HEADS // RANKS)):
        plan = st.plan(heads=heads, head_dim=WIDTH, length=LENGTH, block=BLOCK)
        tables = distribute_tensor(st.tables(pattern, plan), mesh, [Replicate()])
        shards = [
            distribute_tensor(x, mesh, [Shard(dimension)]).requires_grad_() for x in (q, k, v)
        ]
        o, _ = torch.ops.spion.attention(*shards, tables, None, BLOCK, 0.0, "masked")
        assert o.placements == (Shard(dimension),)
        assert torch.equal(o.full_tensor(), wanted)
        gradients = torch.autograd.grad(o, shards, distribute_tensor(d_o, mesh, [Shard(dimension)]))
        for given, right in zip(gradients, wanted_gradients):
            assert torch.equal(given.full_tensor(), right)
    packed_dtensor(mesh, pattern, (q, k, v), d_o)


def packed_dtensor(mesh, pattern, operands, d_o):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    plan = st.plan(heads=HEADS, head_dim=WIDTH, length=LENGTH, block=BLOCK)
    tables = distribute_tensor(st.tables(pattern, plan), mesh, [Replicate()])
    qkv, d_o = torch.cat(operands, 1).transpose(1, 2).contiguous(), d_o.transpose(1, 2)
    whole = qkv.clone().requires_grad_()
    wanted = st.packed_attention(whole, pattern)
    shards = distribute_tensor(qkv, mesh, [Shard(0)]).requires_grad_()
    words = HEADS, tables, None, BLOCK, 0.0, "masked", False, None
    o, _ = torch.ops.spion.packed_attention(shards, *words)
    assert o.placements == (Shard(0),) and torch.equal(o.full_tensor(), wanted)
    (gradient,) = torch.autograd.grad(o, shards, distribute_tensor(d_o, mesh, [Shard(0)]))
    assert torch.equal(gradient.full_tensor(), torch.autograd.grad(wanted, whole, d_o)[0])


WAYS = {"ddp": ddp, "fsdp": fsdp, "dtensor": dtensor}


def work(rank, way, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS, store=dist.FileStore(store, RANKS))
    try:
        WAYS[way](rank)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("way", WAYS)
def test_two_processes(way, tmp_path):
    torch.multiprocessing.spawn(work, (way, str(tmp_path / "store")), nprocs=RANKS)
