"""What the PyTorch operator costs, and what a training step gains: beside `spion bench attention`
and FlexAttention, in one run on one GPU.

    python bench/torch_op.py cpu [--device cpu]     microseconds of the CPU for a call, here by parts
    python bench/torch_op.py device --spion PATH    device time in graph replay, beside the command's
    python bench/torch_op.py step                   compiled training steps, ours and FlexAttention's

Ours of `step` takes q, k and v as the projection leaves them ("spion"), or as three tensors
("spion-apart"), as FlexAttention does.

A line of JSON for each figure on standard output.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy
import torch
import torch.nn.functional as F
from torch import nn

import spion
import spion.torch as st


def say(**figures):
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(json.dumps({"device": name, **figures}), flush=True)


def random_pattern(length, block, density, seed):
    """The diagonal, and random blocks up to the density."""
    rows = length // block
    bits = numpy.eye(rows, dtype=numpy.uint8).reshape(-1)
    order = numpy.random.default_rng(seed).permutation(rows * rows)
    wanted = max(int(density * rows * rows), rows)
    for at in order:
        if bits.sum() >= wanted:
            break
        bits[at] = 1
    return spion.Pattern.from_bits(bits.reshape(rows, rows), length, block=block)


def time_of(run, repeats=30, warm=5):
    """The median in ms of the device."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def empty_operator(like):
    """PyTorch's own part of a call: an operator of the same arguments, registered in Python from the key
    Autograd as ours is, that computes nothing and returns tensors made before."""
    library = torch.library.Library("spion_bench", "FRAGMENT")
    library.define(str(torch.ops.spion.attention.default._schema).replace("spion::", ""))
    made = torch.empty_like(like), like.new_empty(like.shape[:3], dtype=torch.float32)

    class Empty(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            o, lse = (x.view_as(x) for x in made)
            ctx.mark_non_differentiable(lse)
            ctx.save_for_backward(*inputs[:3], o, lse)
            return o, lse

        @staticmethod
        def backward(ctx, *gradients):
            raise NotImplementedError

    def call(keys, q, *rest):
        return Empty.apply(q, *rest) if q.requires_grad else made

    library.impl("attention", call, "Autograd", with_keyset=True)
    empty_operator.library = library  # lives as long as the operator
    return torch.ops.spion_bench.attention.default


def parts_of(layer, q, k, v, o, lse):
    """What a call does beside the dispatcher: its outputs, and the library with outputs given."""
    core, memory, head = layer.plan.core, None, None
    empty = torch._C._dynamo.guards._empty_strided_cpu
    if q.is_cuda:
        memory = torch.zeros(core.workspace(1, 0)[0], dtype=torch.uint8, device=q.device)
        head = layer.tables[:16].cpu().numpy().tobytes()
        empty = torch._C._dynamo.guards._empty_strided_cuda
    lent = (o, lse, layer.tables, None, None, memory, head, not q.is_cuda, None)
    sizes = [(tuple(x.shape), x.stride(), x.dtype) for x in (o, lse)]
    return {
        "library, outputs given": lambda: core.forward(q, k, v, *lent),
        "outputs": lambda: (empty(*sizes[0]), empty(*sizes[1])),
    }


def measure_cpu(args):
    """Time of this thread's calls, of a problem that is as good as none: a GPU keeps up with them; on the
    host, where the kernel is within the call, it is one block of 16, and "library" is that much and
    the checks. The least of many short rounds, so that a busy machine is seldom in it."""
    cuda = args.device == "cuda"
    length, block, width = (256, 64, 64) if cuda else (16, 16, 16)
    dtype = torch.bfloat16 if cuda else torch.float32
    pattern = spion.Pattern.from_bits(numpy.eye(length // block), length, block=block)
    kind = dict(device=args.device, dtype=dtype)
    layer = st.BlockSparseAttention(pattern, heads=1, head_dim=width, **kind)
    q, k, v = (torch.randn(1, 1, length, width, **kind) for _ in range(3))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    op, floor = torch.ops.spion.attention.default, empty_operator(q)
    rest = (layer.tables, None, block, 0.0, "masked")
    o, lse = op(q, k, v, *rest)

    def inference():
        with torch.inference_mode():
            for _ in range(20):
                op(q, k, v, *rest)

    runs = {
        "x + 1": lambda: q + 1,
        "empty_like": lambda: torch.empty_like(q),
        "empty operator": lambda: floor(q, k, v, *rest),
        "empty operator, recording": lambda: floor(*leaves, *rest),
        "plain": lambda: op(q, k, v, *rest),
        "inference_mode": inference,
        "recording": lambda: op(*leaves, *rest),
        "module": lambda: layer(q, k, v),
        "module, recording": lambda: layer(*leaves),
    }
    runs |= parts_of(layer, q, k, v, o, lse)
    times = {name: [] for name in runs}
    for _ in range(40):
        for name, run in runs.items():
            run()
            if cuda:
                torch.cuda.synchronize()
            start = time.thread_time()
            for _ in range(100):
                run()
            calls = 20 if name == "inference_mode" else 1
            times[name].append((time.thread_time() - start) * 1e4 / calls)
    for name, each in times.items():
        say(
            figure=f"cpu {name}",
            best_us=round(min(each), 2),
            median_us=round(statistics.median(each), 2),
        )


def graph_of(run):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            run()
    return graph


def measure_device(args):
    for batch, heads, width, length, block, density in (
        (32, 2, 32, 2048, 64, 0.04),
        (8, 8, 64, 4096, 64, 0.1),
        (1, 16, 64, 16384, 64, 0.1),
        (2, 16, 128, 8192, 128, 0.1),
    ):
        pattern = random_pattern(length, block, density, 1)
        layer = st.BlockSparseAttention(
            pattern,
            heads=heads,
            head_dim=width,
            dtype=torch.bfloat16,
            device="cuda",
            typical=pattern,
        )
        shape = (batch, heads, length, width)
        q, k, v, d_o = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
        call = (layer.tables, None, block, 0.0, "masked")
        with torch.no_grad():
            o, lse = torch.ops.spion.attention(q, k, v, *call)
            forward = graph_of(lambda: torch.ops.spion.attention(q, k, v, *call))
            backward = graph_of(
                lambda: torch.ops.spion.attention_backward(d_o, q, k, v, o, lse, *call)
            )
        ours = {"forward": time_of(forward.replay) / 10, "backward": time_of(backward.replay) / 10}
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "pattern.bits"
            file.write_text(pattern.text)
            command = [
                args.spion,
                "bench",
                "attention",
                "--json",
                "--no-dense",
                "--softmax",
                "masked",
            ]
            for name, value in (
                ("pattern", file),
                ("block", block),
                ("heads", heads),
                ("head-dim", width),
                ("batch", batch),
                ("dtype", "bf16"),
                ("device", "cuda"),
            ):
                command += [f"--{name}", str(value)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        say(
            figure="device",
            shape=shape,
            block=block,
            density=density,
            op_ms=ours,
            command=json.loads(told),
        )


class Layer(nn.Module):
    """The paper's: pre-norm, dropout .1, GELU."""

    def __init__(self, width, heads, head_dim, hidden):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm, self.norm_of_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * heads * head_dim), nn.Linear(
            heads * head_dim, width
        )
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, attention):
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, self.head_dim)
        o = attention(qkv).reshape(batch, length, -1)
        x = x + F.dropout(self.out(o), 0.1)
        return x + F.dropout(self.down(F.dropout(F.gelu(self.up(self.norm_of_mlp(x))), 0.1)), 0.1)


class Packed(nn.Module):
    """Ours, of [B, L, 3, H, D]."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, qkv):
        return self.attention.packed(qkv)


class Apart(Packed):
    """Any attention of three tensors [B, H, L, D]."""

    def forward(self, qkv):
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.attention(q, k, v).transpose(1, 2)


class Model(nn.Module):
    def __init__(self, tokens, length, width, heads, head_dim, hidden, layers, classes, attentions):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, heads, head_dim, hidden) for _ in range(layers))
        self.norm, self.attentions = nn.LayerNorm(width), nn.ModuleList(attentions)
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, ids, wanted):
        x = F.dropout(self.tokens(ids) + self.positions.weight, 0.1)
        for layer, attention in zip(self.layers, self.attentions):
            x = layer(x, attention)
        return F.cross_entropy(self.head(self.norm(x).mean(1)).float(), wanted)


def flex_layers(patterns, tiles):
    """FlexAttention on the patterns' own blocks with tiles of their size ("own"), or on blocks of 128
    with the pattern as a mask within them ("masked")."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    made = []
    for pattern in patterns:
        options = None
        if tiles == "own":
            mask = st.to_block_mask(pattern, "cuda")
            mask = BlockMask.from_kv_blocks(
                mask.kv_num_blocks,
                mask.kv_indices,
                mask.full_kv_num_blocks,
                mask.full_kv_indices,
                BLOCK_SIZE=pattern.block,
            )
            names = ("BLOCK_M", "BLOCK_N", "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2")
            options = dict.fromkeys(names, pattern.block)
        else:
            bits, block, many = torch.from_numpy(pattern.bits()).bool().cuda(), pattern.block, 128
            wide = bits.view(len(bits) // 2, 2, len(bits) // 2, 2).any(3).any(1).to(torch.int32)
            order = torch.argsort(wide, dim=1, descending=True, stable=True).to(torch.int32)

            def inside(b, h, i, j, bits=bits, block=block):
                return bits[i // block, j // block]

            count = wide.sum(1, dtype=torch.int32)
            mask = BlockMask.from_kv_blocks(
                count[None, None], order[None, None], BLOCK_SIZE=many, mask_mod=inside
            )
        made.append(
            lambda q, k, v, m=mask, o=options: flex_attention(
                q, k, v, block_mask=m, kernel_options=o
            )
        )
    return made


def spion_layers(patterns, heads, head_dim):
    kind = dict(heads=heads, head_dim=head_dim, dtype=torch.bfloat16, device="cuda")
    return [st.BlockSparseAttention(each, typical=patterns[0], **kind) for each in patterns]


STEPS = {
    "listops": dict(batch=256, tokens=32, length=2048, width=64, heads=2, head_dim=32, hidden=128,
                    layers=4, classes=10, density=0.04),
    "long": dict(batch=1, tokens=256, length=16384, width=1024, heads=16, head_dim=64, hidden=4096,
                 layers=4, classes=10, density=0.10),
}  # fmt: skip


def measure_step(args):
    torch.set_float32_matmul_precision("high")
    for name in args.models:
        settings = dict(STEPS[name])
        batch, density = settings.pop("batch"), settings.pop("density")
        length, heads, width = (settings[key] for key in ("length", "heads", "head_dim"))
        patterns = [random_pattern(length, 64, density, seed) for seed in range(settings["layers"])]
        for way in args.ways:
            torch._dynamo.reset()
            torch.manual_seed(0)
            if way.startswith("spion"):
                attentions = spion_layers(patterns, heads, width)
            else:
                attentions = flex_layers(patterns, way.split("-")[1])
            attentions = [(Packed if way == "spion" else Apart)(each) for each in attentions]
            model = Model(**settings, attentions=attentions).cuda()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            run = torch.compile(model, mode="reduce-overhead")
            ids = torch.randint(0, settings["tokens"], (batch, length), device="cuda")
            wanted = torch.randint(0, settings["classes"], (batch,), device="cuda")

            def step():
                with torch.autocast("cuda", torch.bfloat16):
                    loss = run(ids, wanted)
                loss.backward()
                nn.utils.clip_grad_value_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            began = time.monotonic()
            try:
                step()
                first = time.monotonic() - began
                say(
                    figure="step",
                    model=name,
                    way=way,
                    ms=time_of(step, 15, 6),
                    first_s=round(first, 1),
                )
            except Exception as error:  # a peer that fails is a line too
                say(figure="step", model=name, way=way, failure=repr(error)[:300])
            del model, optimizer, run, step
            torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cpu", "device", "step"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="of `cpu`")
    parser.add_argument("--spion", default="build/spion")
    parser.add_argument("--models", nargs="+", default=list(STEPS), choices=list(STEPS))
    ways = ("spion", "spion-apart", "flex-own", "flex-masked")
    parser.add_argument("--ways", nargs="+", default=ways, choices=ways)
    args = parser.parse_args()
    {"cpu": measure_cpu, "device": measure_device, "step": measure_step}[args.what](args)


if __name__ == "__main__":
    main()
