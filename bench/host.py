#!/usr/bin/env python3
"""Measures spion's CPU kernels and PyTorch's scaled_dot_product_attention in turns, on the same
threads.

    bench/host.py --spion build/spion [--threads N] [--rounds N] [--json FILE]

PyTorch (any version with a CPU) computes the whole map in fp32; ours a sparse pattern and the full
one. A round is ours sparse, ours full, PyTorch, one after the other, so that what else the machine
does meets all of them; of each the fastest round counts, forward and backward apart. Prints a table and
the ratios; exit status 1 if a measurement failed. The threads are given to both: SPION's by
--threads, PyTorch's by torch.set_num_threads."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

PASSES = ("forward", "backward")
SIDES = ("ours sparse", "ours full", "PyTorch")
# What is wanted of both passes together: (ours, times faster than PyTorch).
WANTED = {"ours sparse": 25.0, "ours full": 1.5}
OURS_SECONDS = 300


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="spion's CPU kernels beside PyTorch's, in turns")
    parser.add_argument("--spion", default="build/spion", help="the command to measure")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="B")
    parser.add_argument("--heads", type=int, default=2, help="H")
    parser.add_argument("--length", type=int, default=2048, help="L")
    parser.add_argument("--head-dim", type=int, default=32, help="D")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--seconds", type=float, default=1.0, help="of PyTorch's passes, a round")
    parser.add_argument("--json", type=pathlib.Path, help="a file for every round's figures")
    options = parser.parse_args(argv)
    for name in ("threads", "rounds", "batch", "heads", "length", "head_dim", "block"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}: give 1 or more")
    if not 0 < options.density <= 1:
        parser.error(f"--density is {options.density}: give more than 0 and at most 1")
    return options


def spion_command(options, density):
    return [
        options.spion, "bench", "attention", "--json", "--no-dense", "--device", "cpu",
        "--threads", str(options.threads), "--pattern-random", str(density),
        "--block", str(options.block), "--batch", str(options.batch),
        "--heads", str(options.heads), "--length", str(options.length),
        "--head-dim", str(options.head_dim), "--softmax", "masked",
    ]  # fmt: skip


def measure_ours(options, density):
    """{pass: milliseconds}; RuntimeError with the command's last line."""
    run = subprocess.run(
        spion_command(options, density),
        capture_output=True,
        text=True,
        timeout=OURS_SECONDS,
        check=False,
    )
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no message"])[-1])
    said = json.loads(run.stdout)
    return {name: said[name]["ms"] for name in PASSES}


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


class PyTorch:
    def __init__(self, options):
        import torch

        self.torch, self.seconds = torch, options.seconds
        torch.set_num_threads(options.threads)
        size = (options.batch, options.heads, options.length, options.head_dim)
        self.inputs = [torch.randn(size, requires_grad=True) for _ in range(3)]
        self.gradient = torch.randn(size)

    def forward(self):
        return self.torch.nn.functional.scaled_dot_product_attention(*self.inputs)

    def measure(self):
        """Medians of calls for so many seconds, the first call left out."""
        times = {name: [] for name in PASSES}
        end = time.perf_counter() + self.seconds
        while len(times["forward"]) < 3 or time.perf_counter() < end:
            with self.torch.no_grad():
                start = time.perf_counter()
                self.forward()
                times["forward"].append(time.perf_counter() - start)
            out = self.forward()
            start = time.perf_counter()
            self.torch.autograd.grad(out, self.inputs, self.gradient)
            times["backward"].append(time.perf_counter() - start)
        return {name: 1e3 * median(seconds[1:]) for name, seconds in times.items()}


def fastest(rounds):
    """{side: {pass: milliseconds}} of [{side: {pass: milliseconds}}]."""
    return {
        side: {name: min(one[side][name] for one in rounds) for name in PASSES}
        for side in rounds[0]
    }


def ratios(best):
    """{side: {pass or "both": times faster than PyTorch}}."""
    theirs = best["PyTorch"]
    result = {}
    for side in WANTED:
        ours = best[side]
        result[side] = {name: theirs[name] / ours[name] for name in PASSES}
        result[side]["both"] = sum(theirs.values()) / sum(ours.values())
    return result


def markdown(best, faster):
    lines = ["| | forward ms | x | backward ms | x | both ms | x | wanted |\n", "|---" * 8 + "|\n"]
    for side, times in best.items():
        cells = [side]
        for name in (*PASSES, "both"):
            ms = sum(times.values()) if name == "both" else times[name]
            cells += [f"{ms:.2f}", f"{faster[side][name]:.2f}" if side in faster else ""]
        cells.append(f"{WANTED[side]:g}" if side in WANTED else "")
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


def processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line for line in text.splitlines() if line.startswith("model name"))[13:].strip()
    except (OSError, StopIteration):
        return "unknown processor"


def main(argv):
    options = parse_arguments(argv)
    try:
        peer = PyTorch(options)
        rounds = []
        for _ in range(options.rounds):
            rounds.append(
                {
                    "ours sparse": measure_ours(options, options.density),
                    "ours full": measure_ours(options, 1),
                    "PyTorch": peer.measure(),
                }
            )
            said = ", ".join(f"{side} {sum(t.values()):.2f} ms" for side, t in rounds[-1].items())
            print(f"round {len(rounds)}: {said}", flush=True)
    except (ImportError, OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"host.py: {error}", file=sys.stderr)
        return 1
    best = fastest(rounds)
    about = (
        f"{processor()}, {options.threads} threads, PyTorch {peer.torch.__version__}, "
        f"{options.batch},{options.heads},{options.length},{options.head_dim} b{options.block} "
        f"{options.density:g}, fp32, fastest of {options.rounds} rounds"
    )
    print(f"\n{about}\n\n{markdown(best, ratios(best))}", end="")
    if options.json:
        result = {"about": about, "rounds": rounds, "ratios": ratios(best)}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
