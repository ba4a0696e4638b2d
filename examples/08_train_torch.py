"""Trains a small PyTorch Transformer dense, finds each layer's pattern, and goes on sparse.

    python examples/08_train_torch.py                     on a GPU where there is one, else on the CPU
    python examples/08_train_torch.py --length 2048 --block 64 --compile

The task: among random tokens a few are marked, all of one class, which is the answer. Every
evaluation looks at the attention maps; when the rule of spion.torch.SpionSchedule holds (or at
--transition), training turns sparse and the learning rate's cycle begins anew. In the end the model
answers fresh questions; the exit code is 1 if it is not at least three times as good as chance.
"""

import argparse
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import spion
import spion.torch as st

CLASSES = 8


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, attention: st.BlockSparseAttention) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_of_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, L, width]
        batch, length, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        o = self.attention.packed(qkv).reshape(batch, length, width)
        x = x + self.out(o)
        return x + self.mlp(self.norm_of_mlp(x))


class Model(nn.Module):
    def __init__(self, args: argparse.Namespace, dtype: torch.dtype) -> None:
        super().__init__()
        self.tokens = nn.Embedding(2 * CLASSES, args.width)
        self.positions = nn.Parameter(0.02 * torch.randn(args.length, args.width))
        full = spion.Pattern.full(args.length, block=args.block)
        self.layers = nn.ModuleList(
            Layer(
                args.width,
                args.heads,
                st.BlockSparseAttention(
                    full,
                    heads=args.heads,
                    head_dim=args.width // args.heads,
                    dtype=dtype,
                    device=args.device,
                ),
            )
            for _ in range(args.layers)
        )
        self.head = nn.Linear(args.width, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # [B, L] to [B, CLASSES]
        x = self.tokens(ids) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def batch_of(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [B, L], of which a 32nd is marked; classes [B]."""
    ids = torch.randint(0, CLASSES, (args.batch, args.length), device=args.device)
    wanted = torch.randint(0, CLASSES, (args.batch,), device=args.device)
    marked = torch.rand(args.batch, args.length, device=args.device) < 1 / 32
    return torch.where(marked, CLASSES + wanted[:, None], ids), wanted


@torch.no_grad()
def accuracy_of(model: Model, args: argparse.Namespace, dtype: torch.dtype, batches: int) -> float:
    """Of fresh samples."""
    right = 0
    for _ in range(batches):
        ids, wanted = batch_of(args)
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            right += int((model(ids).argmax(-1) == wanted).sum())
    return right / (batches * args.batch)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in (
        ("steps", 300),
        ("length", 256),
        ("block", 32),
        ("batch", 16),
        ("width", 64),
        ("heads", 2),
        ("layers", 2),
        ("every", 20),
        ("transition", 150),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quantile", type=float, default=0.8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main() -> int:
    args = parse()
    torch.manual_seed(0)
    half = args.device != "cpu"
    model = Model(args, torch.bfloat16 if half else torch.float32).to(args.device)
    run = torch.compile(model, fullgraph=True) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate)
    schedule = st.SpionSchedule(model, quantile=args.quantile)
    rates = schedule.restart(optimizer, args.steps, args.rate)
    began = time.perf_counter()
    for step in range(args.steps):
        ids, wanted = batch_of(args)
        with torch.autocast(args.device, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(run(ids), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        # Between steps: a pattern must not change between a forward pass and its backward pass.
        if not schedule.sparse and step % args.every == args.every - 1:
            with torch.autocast(args.device, torch.bfloat16, enabled=half):
                holds = schedule.observe(lambda: model(ids))
            if holds or step + 1 >= args.transition:
                for index, pattern in enumerate(schedule.turn_sparse()):
                    print(f"layer {index}: density {pattern.density:.3f}")
                    print(pattern.to_art())
                rates = schedule.restart(optimizer, max(args.steps - step - 1, 1), args.rate)
        if step % args.every == args.every - 1:
            phase = "sparse" if schedule.sparse else "dense"
            print(f"step {step + 1:5d}  {phase:6s}  loss {loss.item():.4f}")
    seconds = time.perf_counter() - began
    accuracy = accuracy_of(model, args, torch.bfloat16 if half else torch.float32, 16)
    print(f"accuracy {accuracy:.3f}, by chance {1 / CLASSES:.3f}")
    print(f"done: {args.steps} steps in {seconds:.1f} s, {spion.compiles()} kernels compiled")
    return 0 if accuracy > 3 / CLASSES else 1


if __name__ == "__main__":
    sys.exit(main())
