"""The example that trains with PyTorch: it learns, in one command, on the host."""

import os
import pathlib
import re
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_training_learns():
    command = [sys.executable, EXAMPLES / "08_train_torch.py", "--device", "cpu"]
    sizes = {"steps": 120, "length": 128, "transition": 60}
    for name, value in sizes.items():
        command += [f"--{name}", str(value)]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=600)
    assert told.returncode == 0, told.stdout + told.stderr
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", told.stdout)]
    assert len(losses) == 6 and losses[-1] < 0.5 * losses[0], told.stdout
    phases = re.findall(r"  (dense|sparse) ", told.stdout)
    assert phases[0] == "dense" and phases[-1] == "sparse"
    accuracy = float(re.search(r"accuracy (\d\.\d+)", told.stdout)[1])
    assert accuracy > 0.375, told.stdout  # chance is an eighth
    densities = [float(x) for x in re.findall(r"layer \d+: density (\d\.\d+)", told.stdout)]
    assert len(densities) == 2 and all(0 < density < 0.6 for density in densities)
