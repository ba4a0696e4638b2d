"""TensorBoard reads what `spion train --tensorboard` writes, after a stop and a resume too: with each of
its ways to read (the accumulator, and what its server shows), the history is that of metrics.csv.

    tensorboard_files.py SPION        needs Python's tensorboard
"""
import os, signal, subprocess, sys, tempfile, time

from tensorboard.backend.event_processing import event_accumulator, plugin_event_multiplexer

SMALL = """--device cpu --length 64 --min-length 10 --max-length 60 --layers 1 --heads 1 --head-dim 16
 --d-model 16 --feed-forward 16 --batch 4 --block 16 --train-samples 50 --validation-samples 5
 --test-samples 5 --warmup 2 --steps 3000 --eval-every 500 --transition-step 1000 --quantile 0.8
 --tensorboard --checkpoint-every 100""".split()


def expected(run, split, column):
    rows = [line.rstrip("\n").split(",") for line in open(f"{run}/metrics.csv")]
    at = rows[0].index(column)
    return [(int(row[0]), float(row[at])) for row in rows[1:] if row[2] == split]


def same(found, wanted, what):
    found = [(event.step, event.value) for event in found]
    assert [step for step, _ in found] == [step for step, _ in wanted], (what, len(found), len(wanted))
    assert all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(found, wanted)), what


def main():
    spion = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        run = folder + "/run"
        child = subprocess.Popen([spion, "train", "listops", "--out", run, *SMALL],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.isdir(run + "/checkpoints") and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)  # between checkpoints: some steps are lost
        child.wait()
        subprocess.run([spion, "train", "listops", "--resume", run], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        files = os.listdir(run + "/tensorboard")
        assert len(files) == 2, files
        everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
        accumulator = event_accumulator.EventAccumulator(run + "/tensorboard", everything)
        accumulator.Reload()
        multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
        multiplexer.AddRunsFromDirectory(folder)
        multiplexer.Reload()
        for split in ("train", "validation", "test"):
            for column in ("loss", "accuracy"):
                wanted = expected(run, split, column)
                assert wanted
                same(accumulator.Scalars(f"{split}/{column}"), wanted, (split, column))
                tensors = multiplexer.Tensors("run/tensorboard", f"{split}/{column}")
                steps = [event.step for event in tensors]
                assert steps == [step for step, _ in wanted], (split, column, len(steps), len(wanted))
        print(f"{len(expected(run, 'train', 'loss'))} steps in {len(files)} files, read alike by both")


main()
