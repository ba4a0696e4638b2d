#!/usr/bin/env python3
"""Measures spion and its peers on the same patterns, in one run on one machine.

    bench/peers.py --spion build/spion --out DIR [--masks | --every | --shapes NAME,...]
                   [--only ours,flex,sdpa,fa4,bsa]

Peers: FlexAttention (PyTorch, compiled) with its own tiles, with tiles equal to the pattern's block
and with 128-wide blocks masked inside; cuDNN and FlashAttention-2 through PyTorch, which compute the
whole map whatever the pattern; FlashAttention-4 (package flash-attn-4) and cuDNN's block-sparse
attention (package nvidia-cudnn-frontend, cudnn.BSA), both on the pattern's blocks. A package that is
not installed is a failure that the table names. --masks: causal maps, windows, documents, grouped heads,
patterns of heads, dropout and other head dimensions, each beside the peers or the shape of ours that its
goal names; --every: these beside the others, in a table of their own. Writes DIR/peers.md and DIR/peers.json, and the patterns, after every
batch. bf16; medians over device events around back-to-back calls, long enough for an event's
resolution; forward without gradients, backward alone. Buffers take turns where one problem's forward
tensors are below 120 MB, on both sides. Exit status 1 if ours failed anywhere."""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import shapes
import table
import workers

KINDS = ("ours", "fa4", "bsa", "flex", "sdpa")  # what a deadline cuts off comes last
OURS_SECONDS = 120  # one shape


def say(text):
    print(text, flush=True)


def names(text):
    return [name for name in text.split(",") if name]


def default_shapes(options):
    if options.every:
        return shapes.SHAPES + shapes.MASKED_SHAPES
    return shapes.MASKED_SHAPES if options.masks else shapes.SHAPES


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="spion beside its peers, on the same patterns")
    parser.add_argument("--spion", default="build/spion", help="the command to measure")
    parser.add_argument("--out", default="runs/peers", type=pathlib.Path, help="folder to write")
    parser.add_argument("--shapes", type=names, help="these alone, with commas between them")
    parser.add_argument("--masks", action="store_true", help="the shapes with masks and options")
    parser.add_argument("--every", action="store_true", help="both tables' shapes")
    parser.add_argument("--rounds", type=int, default=1, help="of ours over all shapes")
    parser.add_argument("--only", type=names, default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--softmax", default="masked", help="of ours: masked or pruned_zero")
    parser.add_argument("--spion-flags", default="", help="more flags of `spion bench attention`")
    parser.add_argument(
        "--autotune", action="store_true", help="FlexAttention with max-autotune too (slow)"
    )
    parser.add_argument(
        "--no-whole-maps", action="store_true",
        help="without cuDNN and FlashAttention-2 where the pattern is not full",
    )  # fmt: skip
    parser.add_argument("--waiting", type=int, default=40, help="compiled peers that wait at once")
    parser.add_argument("--jobs", type=int, default=max(min((os.cpu_count() or 2) - 2, 12), 1))
    parser.add_argument("--seconds", type=float, default=285, help="for all of it")
    options = parser.parse_args(argv)
    if options.masks + options.every + (options.shapes is not None) > 1:
        parser.error("--masks, --every and --shapes each choose shapes: give one of them")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give at least 1")
    for kind in options.only:
        if kind not in KINDS:
            parser.error(f"--only {kind} is not known; choose among {', '.join(KINDS)}")
    try:
        options.shapes = shapes.choose(options.shapes, default_shapes(options))
    except ValueError as error:
        parser.error(str(error))
    return options


def write_patterns(chosen, folder):
    """{shape name: (file, blocks of all its patterns, blocks of a head that the mask keeps)}."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for shape in chosen:
        patterns = shapes.patterns_of(shape)
        file = folder / f"{shape.name}.{'json' if shape.pattern_a_head else 'bits'}"
        file.write_text(shapes.patterns_text(shape, patterns), encoding="ascii")
        blocks = sum(map(shapes.count_blocks, patterns))
        written[shape.name] = file, blocks, shapes.kept_blocks(shape, patterns)
    return written


def option_flags(shape):
    flags = ["--causal"] * shape.causal
    if shape.window is not None:
        flags += ["--window", f"{shape.window},0"]
    if shape.documents:
        flags += ["--documents", ",".join(map(str, shape.documents))]
    if shape.kv_heads:
        flags += ["--kv-heads", str(shape.kv_heads)]
    if shape.pattern_a_head:
        flags += ["--pattern-heads", "query"]
    if shape.dropout:
        flags += ["--dropout", str(shape.dropout)]
    return flags


def spion_command(options, shape, pattern_file, device="cuda"):
    return [
        options.spion, "bench", "attention", "--json", "--no-dense", "--device", device,
        "--pattern", str(pattern_file), "--block", str(shape.block),
        "--batch", str(shape.batch), "--heads", str(shape.heads),
        "--length", str(shape.length), "--head-dim", str(shape.head_dim),
        "--softmax", options.softmax, *option_flags(shape), *options.spion_flags.split(),
    ]  # fmt: skip


def measure_ours(command, blocks):
    """What `spion bench attention --json` said, as a row of results."""
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=OURS_SECONDS, check=False
        )
        if run.returncode != 0:
            raise ValueError((run.stderr.strip().splitlines() or ["no message"])[-1])
        said = json.loads(run.stdout)
        if said["blocks"] != blocks:
            raise ValueError(f"spion read {said['blocks']} blocks of {blocks}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {name: {"failure": f"failed: {error}"[:160]} for name in shapes.PASSES}
    kept = {key: said[key] for key in ("device", "buffer_sets", "compile_cold_ms", "kernels")}
    return {name: {"ms": said[name]["ms"]} for name in shapes.PASSES} | kept


def median_of_rounds(results):
    """One result of several of a shape: the medians, and a failure of any round."""
    combined = dict(results[-1])
    for name in shapes.PASSES:
        failures = [result[name] for result in results if "failure" in result[name]]
        times = [result[name].get("ms") for result in results]
        if failures:
            combined[name] = failures[0]
        else:
            combined[name] = {"ms": statistics.median(times), "rounds": times}
    return combined


def measure_all_of_ours(options, patterns, deadline):
    """{shape name: result}. Shapes take turns, so that those beside each other share the clock's
    whims; rounds after the first end at the deadline."""
    results = {shape.name: [] for shape in options.shapes}
    for number in range(options.rounds):
        for shape in options.shapes:
            if number > 0 and time.monotonic() > deadline:
                continue
            file, blocks, _ = patterns[shape.name]
            result = measure_ours(spion_command(options, shape, file), blocks)
            results[shape.name].append(result)
            say(workers.describe({"shape": shape.name, "setting": "ours", **result}))
    return {name: median_of_rounds(several) for name, several in results.items()}


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe_run(argv, ours, peers):
    devices = {r["device"] for r in [*ours.values(), *peers] if "device" in r}
    return {
        "device": ", ".join(sorted(devices)) or "unknown",
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": ", ".join(sorted({r["torch"] for r in peers if "torch" in r})) or "not used",
        "date": datetime.date.today().isoformat(),
        "commit": os.environ.get("SPION_COMMIT") or output_of("git", "rev-parse", "--short", "HEAD"),
        "command": " ".join(["bench/peers.py", *argv]),
    }


def write_results(folder, about, rows, ours, peers):
    rotated = {name: result.get("buffer_sets") for name, result in ours.items()}
    text = f"{about['device']}, driver {about['driver']}, PyTorch {about['torch']}, "
    text += f"{about['date']}, commit {about['commit']}\n`{about['command']}`\n\n"
    text += table.markdowns(rows)
    text += "\nTF: TFLOP/s on what the mask keeps of the pattern alone, as density counts. Floor: the longer of "
    text += f"moving every tensor once at {shapes.BYTES_PER_SECOND / 1e12:g} TB/s and the products "
    text += f"at {shapes.FLOP_PER_SECOND / 1e12:g} TFLOP/s. x: the other's time over ours.\n"
    text += "Buffer sets that took turns, ours: "
    text += ", ".join(f"{name} {count}" for name, count in rotated.items() if count) + "\n"
    text += "\n" + table.markdown_of_rounds(ours)
    if peers:
        text += "\n" + table.markdown_of_settings(peers)
    (folder / "peers.md").write_text(text, encoding="utf-8")
    result = {"about": about, "rows": rows, "ours": ours, "peers": peers}
    (folder / "peers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main(argv):
    options = parse_arguments(argv)
    deadline = time.monotonic() + options.seconds
    patterns = write_patterns(options.shapes, options.out / "patterns")
    counts = {name: kept for name, (_, _, kept) in patterns.items()}
    ours, peers = {}, []

    def write():
        rows = table.rows_of(options.shapes, counts, ours, peers)
        write_results(options.out, describe_run(argv, ours, peers), rows, ours, peers)

    if "ours" in options.only:
        ours = measure_all_of_ours(options, patterns, deadline)
    write()
    jobs = [
        (shape, setting, patterns[shape.name][0])
        for kind in options.only
        for shape in options.shapes
        for setting in workers.settings_of(shape, [kind], options.autotune)
        if shape.dense or kind != "sdpa" or not options.no_whole_maps
    ]
    with tempfile.TemporaryDirectory(prefix="spion-peers-") as folder:
        batches = workers.run_all(
            jobs, options.jobs, pathlib.Path(folder), deadline, say, options.waiting
        )
        for results in batches:
            peers += results
            write()
    say(f"\n{(options.out / 'peers.md').read_text(encoding='utf-8')}")
    return int(any("failure" in r[name] for r in ours.values() for name in shapes.PASSES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
