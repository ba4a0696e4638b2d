#!/usr/bin/env bash
# A training that goes on after a checkpoint says so in its TensorBoard events: a SessionLog of status
# START at the step from which it goes on (PyTorch's SummaryWriter(purge_step=...) writes one too), and
# readers forget what the steps from there on were before. Two of TensorBoard's own readers do. Its
# Python server, which --load_fast=false chooses and which stands in wherever the data server has no
# wheel, takes the first START that it meets for the beginning of the run and forgets nothing: a run
# that wrote no START when it began, as most do not, shows the lost steps of its first resumption twice
# in one curve. From the second resumption on it forgets as the others do.
#
# Seen with tensorboard 2.21.0, tensorboard-data-server 0.7.2, for a loss of 1 in steps 0 to 7 and,
# resumed, of 2 in steps 5 to 7:
#     no START when the run began
#         EventAccumulator: 1 1 1 1 1 2 2 2
#         server, load_fast true: 1 1 1 1 1 2 2 2
#         server, load_fast false: 1 1 1 1 1 1 1 1 2 2 2
#     a START when the run began
#         EventAccumulator: 1 1 1 1 1 2 2 2
#         server, load_fast true: 1 1 1 1 1 2 2 2
#         server, load_fast false: 1 1 1 1 1 2 2 2
# So a writer does well to begin every run with a START at step 0.
# Needs Python 3.10 or later with pip and venv, and PyPI.
# Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m venv "$scratch/python"
python="$scratch/python/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check tensorboard==2.21.0 \
    tensorboard-data-server==0.7.2
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

root = sys.argv[1]
RUNS = {"no START when the run began": None, "a START when the run began": 0}
FORGOTTEN = [1, 1, 1, 1, 1, 2, 2, 2]
TWICE = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]


def write(folder, start, steps, loss, suffix):
    writer = EventFileWriter(folder, filename_suffix=suffix)
    if start is not None:
        log = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time.time(), step=start, session_log=log))
    for step in steps:
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=loss)])
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()


def served(load_fast):
    """What the server gives the page for each run."""
    command = "-m tensorboard.main --port 0 --logdir".split() + [root, f"--load_fast={load_fast}"]
    server = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    address = next(m[1] for m in (re.search(r":(\d+)/", line) for line in server.stderr) if m)
    losses = {}
    for attempt in range(100):
        for name in RUNS.keys() - losses:
            run = name.replace(" ", "_")
            url = f"http://localhost:{address}/data/plugin/scalars/scalars?tag=loss&run={run}"
            try:
                losses[name] = [int(y) for _, _, y in json.load(urllib.request.urlopen(url))]
            except urllib.error.URLError:  # not loaded yet
                time.sleep(0.2)
    server.kill()
    return losses


seen = {"EventAccumulator": {}}
for name, start in RUNS.items():
    folder = f"{root}/{name.replace(' ', '_')}"
    write(folder, start, range(8), 1, ".1")
    time.sleep(1.1)  # a file's name begins with the second
    write(folder, 5, range(5, 8), 2, ".2")
    reader = EventAccumulator(folder)
    reader.Reload()
    seen["EventAccumulator"][name] = [int(event.value) for event in reader.Scalars("loss")]
for load_fast in ("true", "false"):
    seen[f"server, load_fast {load_fast}"] = served(load_fast)

faults = 0
for name, start in RUNS.items():
    print(name)
    for reader, losses in seen.items():
        print(f"    {reader}:", *losses[name])
        twice = reader.endswith("false") and start is None
        faults += losses[name] != (TWICE if twice else FORGOTTEN)
sys.exit(1 if faults else 0)
END_OF_PYTHON
"$python" "$scratch/look.py" "$scratch/runs" 2>/dev/null
