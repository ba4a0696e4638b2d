"""TensorBoard reads what `spion train --tensorboard` writes, after a stop and a resume too: with each of
its ways to read (the accumulator, and what its server shows), the history is that of metrics.csv.

    tensorboard_files.py SPION        needs Python's tensorboard

A run that was killed is made of a whole one, so that it is the same at every speed: the checkpoints after
the one to go on from are removed, and the last record of the event file is cut in the middle.
"""
import os, pathlib, subprocess, sys, tempfile

from tensorboard.backend.event_processing import event_accumulator, plugin_event_multiplexer

STEPS, EVERY = 400, 100
SMALL = f"""--device cpu --length 64 --min-length 10 --max-length 60 --layers 1 --heads 1 --head-dim 16
 --d-model 16 --feed-forward 16 --batch 4 --block 16 --train-samples 50 --validation-samples 5
 --test-samples 5 --warmup 2 --steps {STEPS} --eval-every 50 --transition-step 150 --quantile 0.8
 --tensorboard --checkpoint-every {EVERY} --checkpoint-minutes 0 --keep-checkpoints 10""".split()


def expected(run, split, column):
    rows = [line.rstrip("\n").split(",") for line in open(run / "metrics.csv")]
    at = rows[0].index(column)
    return [(int(row[0]), float(row[at])) for row in rows[1:] if row[2] == split]


def same(found, wanted, what):
    found = [(event.step, event.value) for event in found]
    assert [step for step, _ in found] == [step for step, _ in wanted], (what, len(found), len(wanted))
    assert all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(found, wanted)), what


def train(*arguments):
    subprocess.run([*arguments], check=True, stdout=subprocess.DEVNULL)


def kill_after(run, step):
    """As if the process had been killed on its way from that checkpoint (0: none yet) to the next."""
    for file in (run / "checkpoints").glob("*.safetensors"):
        if step == 0 or file.name > f"step-{step:08}.safetensors":
            file.unlink()
    (events,) = (run / "tensorboard").iterdir()
    os.truncate(events, events.stat().st_size - 5)


def check(folder, run):
    everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    accumulator = event_accumulator.EventAccumulator(str(run / "tensorboard"), everything)
    accumulator.Reload()
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    assert [step for step, _ in expected(run, "train", "loss")] == list(range(1, STEPS + 1))
    for split in ("train", "validation", "test"):
        for column in ("loss", "accuracy"):
            wanted = expected(run, split, column)
            assert wanted
            same(accumulator.Scalars(f"{split}/{column}"), wanted, (split, column))
            tensors = multiplexer.Tensors("run/tensorboard", f"{split}/{column}")
            steps = [event.step for event in tensors]
            assert steps == [step for step, _ in wanted], (split, column, len(steps), len(wanted))


def main():
    spion = os.path.abspath(sys.argv[1])
    for step, files in ((2 * EVERY, 2), (EVERY, 2), (0, 1)):  # without a checkpoint it begins anew
        with tempfile.TemporaryDirectory() as folder:
            run = pathlib.Path(folder) / "run"
            train(spion, "train", "listops", "--out", run, *SMALL)
            check(folder, run)
            kill_after(run, step)
            train(spion, "train", "listops", "--resume", run)
            found = os.listdir(run / "tensorboard")
            assert len(found) == files, (step, found)
            check(folder, run)
        print(f"killed after the checkpoint of step {step}: {STEPS} steps in {files} files, read alike")


main()
