#!/usr/bin/env python3
"""Kills a training at random moments (SIGKILL) and lets it go on, many times over, on the host.

    tests/kill_training.py SPION [KILLS]        200 by default; some minutes

After every kill the checkpoints must be whole and not be older than before, and what is lost must be
less than one interval. Each run that comes to its end must have learnt, bit for bit, what a run that
was never killed has. tests/train/resume_command_test.cpp does the same ten times.
"""
import json, os, random, shutil, signal, struct, subprocess, sys, tempfile, time

STEPS, EVERY = 6000, 50
SETTINGS = f"""--device cpu --length 64 --min-length 10 --max-length 60 --layers 2 --heads 1 --head-dim 16
 --d-model 16 --feed-forward 16 --batch 4 --block 16 --train-samples 50 --validation-samples 5
 --test-samples 5 --warmup 2 --steps {STEPS} --transition-step {STEPS // 3} --eval-every 100
 --checkpoint-every {EVERY} --quantile 0.8""".split()


def checkpoints(run):
    folder = os.path.join(run, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(os.path.join(folder, n) for n in names if n.startswith("step-"))


def whole(file):
    data = open(file, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    end = max(t["data_offsets"][1] for n, t in header.items() if n != "__metadata__")
    assert len(data) == 8 + size + end, f"{file} is not whole"
    return data[8 + size:], json.loads(header["__metadata__"]["state"])


def losses(run):
    return [line.split(",")[:6] for line in open(os.path.join(run, "metrics.csv"))]


def steps_measured(run):
    try:
        return max((int(row[0]) for row in losses(run)[1:] if row[0].isdigit()), default=0)
    except FileNotFoundError:
        return 0


def main():
    spion, kills = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200
    seed = int(os.environ.get("SEED", time.time()))
    print(f"SEED={seed}")
    draw, done, runs, lost = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        expected = os.path.join(folder, "whole")
        begin = time.time()
        subprocess.run([spion, "train", "listops", "--out", expected, *SETTINGS], check=True, **quiet)
        length = time.time() - begin
        end = whole(checkpoints(expected)[-1])[0]
        while done < kills:
            run, reached = os.path.join(folder, f"run{runs}"), 0
            while True:
                begun = os.path.exists(os.path.join(run, "config.toml"))
                how = ["--resume", run] if begun else ["--out", run, *SETTINGS]
                child = subprocess.Popen([spion, "train", "listops", *how], **quiet)
                try:
                    error = child.communicate(timeout=draw.uniform(0.01, length / 3))[1]
                    assert child.returncode == 0, error.decode()
                    break
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
                    child.communicate()
                    done += 1
                now = max([whole(file)[1]["step"] for file in checkpoints(run)], default=0)
                assert now >= reached, f"went back from {reached} to {now}"
                lost = max(lost, steps_measured(run) - now)
                reached = now
            assert whole(checkpoints(run)[-1])[0] == end, "another model was learnt"
            assert losses(run) == losses(expected), "other losses were measured"
            left = [n for n in os.listdir(os.path.join(run, "checkpoints")) if "unfinished" in n]
            assert not left, left
            shutil.rmtree(run)
            runs += 1
            print(f"{done} kills, {runs} runs came to the same end, at most {lost} steps were lost")
        assert lost <= EVERY + 1, f"{lost} steps were lost, an interval has {EVERY}"


main()
