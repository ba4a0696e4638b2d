#!/usr/bin/env python3
"""Training by several processes: samples a second of 1 and of N, whether a run repeats bit for bit,
and what happens when a process is killed.

    bench/processes.py SPION FOLDER [--processes N] [--steps 400] [--tasks listops,retrieval]
                                    [--device cuda] [--flags "--length 256 ..."]

Each task is trained at the paper's batch a process, on few samples, dense for a quarter of the steps,
sparse from there (`retrieval` on random texts). Times are of the wall clock, between rows of
metrics.csv that were written at different times, the first of each phase left out. Prints a table for
docs/results.md; runs and their logs stay in FOLDER. Needs nothing but Python.
"""
import argparse, csv, json, os, random, shlex, signal, subprocess, sys, time


def start(args, run, task, processes, flags, resume=False):
    where = ["--resume", run] if resume else ["--out", run]
    children = []
    for rank in range(processes):
        env = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank))
        with open(f"{run}.log{rank}", "a") as log:
            children.append(subprocess.Popen([args.spion, "train", task, *where, *flags], env=env,
                                             stdout=log, stderr=log))
    return children


def finish(children, run):
    codes = [child.wait() for child in children]
    if any(codes):
        for rank in range(len(children)):
            sys.stderr.write(open(f"{run}.log{rank}").read()[-2000:])
    return codes


def train(args, name, task, processes, flags):
    run = os.path.join(args.folder, name)
    begin = time.time()
    codes = finish(start(args, run, task, processes, flags), run)
    assert not any(codes), f"{name} ended with {codes}"
    print(f"# {name}: {time.time() - begin:.1f} s in all", flush=True)
    return run


def rows(run):
    with open(os.path.join(run, "metrics.csv")) as file:
        return list(csv.DictReader(file))


def step_ms(run, phase):
    """Milliseconds a step by the wall clock, and by the device's marks (median)."""
    of_phase = [r for r in rows(run) if r["phase"] == phase and r["split"] == "train"]
    marks = {float(r["seconds"]): int(r["step"]) for r in of_phase}  # the last step of each time
    times = sorted(marks)[1:]  # the first holds what the phase began with
    if len(times) < 2:
        return None, None
    wall = 1000 * (times[-1] - times[0]) / (marks[times[-1]] - marks[times[0]])
    device = sorted(float(r["step_ms"]) for r in of_phase[len(of_phase) // 4:])
    return wall, device[len(device) // 2]


def write_pairs(folder, samples, length=4000):
    os.makedirs(folder, exist_ok=True)
    draw = random.Random(1)
    for split, count in (("train", samples), ("validation", 64), ("test", 64)):
        with open(os.path.join(folder, split + ".tsv"), "w") as file:
            for i in range(count):
                texts = ["".join(draw.choices("abcdefghij klmnop", k=length)) for _ in range(2)]
                file.write(f"{i % 2}\t{texts[0]}\t{texts[1]}\n")
    return folder


def flags_of(args, task):
    flags = ["--device", args.device, "--steps", str(args.steps), "--transition-step",
             str(args.steps // 4), "--eval-every", str(10 * args.steps), "--checkpoint-minutes", "0",
             "--validation-samples", "64", "--test-samples", "64"]
    if task == "listops":
        flags += ["--train-samples", "4096"]
    elif task == "retrieval":
        flags += ["--data", write_pairs(os.path.join(args.folder, "pairs"), 2048)]
    return flags + shlex.split(args.flags)


def batch_of(run):
    for line in open(os.path.join(run, "config.toml")):
        if line.startswith("batch "):
            return int(line.split("=")[1])


def compare(args, task):
    flags, many = flags_of(args, task), args.processes
    one = train(args, f"{task}-1", task, 1, flags)
    joint = train(args, f"{task}-{many}", task, many, flags)
    for phase in ("dense", "sparse"):
        before, after = step_ms(one, phase), step_ms(joint, phase)
        if before[0] is None or after[0] is None:
            print(f"| {task} {phase} | too few steps to tell |")
            continue
        batch = batch_of(one)
        print(f"| {task} {phase} | {batch} | {before[0]:.2f} ({before[1]:.2f}) | {after[0]:.2f} "
              f"({after[1]:.2f}) | {1000 * batch / before[0]:.0f} | "
              f"{1000 * many * batch / after[0]:.0f} | {many * before[0] / after[0]:.2f} |", flush=True)
    return joint


def files_of(run):
    folder = os.path.join(run, "checkpoints")
    last = sorted(name for name in os.listdir(folder) if name.startswith("step-"))[-1]
    data = open(os.path.join(folder, last), "rb").read()
    size = int.from_bytes(data[:8], "little")
    patterns = os.path.join(run, "patterns")
    return data[8 + size:], [open(os.path.join(patterns, name)).read()
                             for name in sorted(os.listdir(patterns))]


def repeat(args, task, joint):
    again = train(args, f"{task}-again", task, args.processes, flags_of(args, task))
    losses = [[r[c] for c in ("step", "phase", "split", "loss", "accuracy")] for r in rows(joint)]
    same = losses == [[r[c] for c in ("step", "phase", "split", "loss", "accuracy")]
                      for r in rows(again)]
    print(f"# repeated: losses {'the same' if same else 'DIFFER'}, parameters "
          f"{'the same' if files_of(joint)[0] == files_of(again)[0] else 'DIFFER'}, patterns "
          f"{'the same' if files_of(joint)[1] == files_of(again)[1] else 'DIFFER'}", flush=True)


def kill(args, task):
    """One is killed in the middle; then a single process goes on from the checkpoint."""
    run = os.path.join(args.folder, f"{task}-killed")
    flags = flags_of(args, task) + ["--checkpoint-every", "20"]
    flags[flags.index("--steps") + 1] = "100000"
    children = start(args, run, task, args.processes, flags)
    until = time.time() + 120
    while not os.path.isdir(os.path.join(run, "checkpoints")) and time.time() < until:
        time.sleep(0.05)
    time.sleep(2)
    children[-1].send_signal(signal.SIGKILL)
    begin = time.time()
    codes = [child.wait() for child in children[:-1]]
    print(f"# killed process {args.processes - 1}: the others ended after {time.time() - begin:.1f} s "
          f"with {codes}:", open(f"{run}.log0").read().strip().splitlines()[-1], flush=True)
    begin = time.time()
    code = start(args, run, task, 1, ["--minutes", "0.1"], resume=True)[0].wait()
    print(f"# one process went on for {time.time() - begin:.1f} s and ended with {code}:")
    print("".join("#   " + line + "\n" for line in open(f"{run}.log0").read().splitlines()
                  if "process" in line or "going on" in line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spion")
    parser.add_argument("folder")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tasks", default="listops,retrieval")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--flags", default="")
    args = parser.parse_args()
    os.makedirs(args.folder)
    print(f"| task | batch | 1: ms a step (device) | {args.processes}: ms a step (device) | samples/s "
          f"| samples/s | times |\n|---|---|---|---|---|---|---|", flush=True)
    tasks = args.tasks.split(",")
    joint = [compare(args, task) for task in tasks]
    repeat(args, tasks[0], joint[0])
    kill(args, tasks[0])
    print(json.dumps({"processes": args.processes, "device": json.load(
        open(os.path.join(joint[0], "device.json")))["device"]}))


if __name__ == "__main__":
    main()
