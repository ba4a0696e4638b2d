#!/usr/bin/env python3
"""The wheel that `./run wheel` made: what is in it, and that every Python from 3.10 on which is here
installs it into a virtual environment of its own and computes with it.

    check_wheel.py WHEEL
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

MEGABYTES, IMPORT_MS = 25, 150
MINORS = range(10, 16)
NOTICES = ("libfmt", "llvm", "libzstd", "nanobind", "nlohmann")
USE = """
import sys, time
began = time.perf_counter()
import spion
milliseconds = (time.perf_counter() - began) * 1e3
assert "torch" not in sys.modules and "numpy" not in sys.modules
import numpy as np
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((2, 2, 100, 16)).astype(np.float32) for _ in range(3))
bits = np.tri(4) > 0
pattern = spion.Pattern.from_bits(bits, 100, block=32)
plan = spion.plan(heads=2, head_dim=16, length=100, block=32)
o, lse = plan.forward(q, k, v, pattern)
inside = np.kron(bits, np.ones((32, 32)))[:100, :100] > 0
scores = np.where(inside, np.float64(q) @ np.float64(k).swapaxes(-1, -2) / 4, -np.inf)
weights = np.exp(scores - scores.max(-1, keepdims=True))
wanted = weights / weights.sum(-1, keepdims=True) @ v
assert np.abs(o - wanted).max() < 2e-5
print(milliseconds)
"""


def fail(sentence: str) -> None:
    sys.exit(f"{sys.argv[1]}: {sentence}")


def check_contents(wheel: pathlib.Path) -> None:
    if not re.search(r"-cp310-abi3-manylinux_2_\d+_x86_64\.whl$", wheel.name):
        fail("is no wheel of CPython's stable ABI for manylinux")
    size = wheel.stat().st_size / 1e6
    if size > MEGABYTES:
        fail(f"is {size:.1f} MB, and at most {MEGABYTES} are wanted")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("spion/_core.pyi", "spion/py.typed", "spion/torch/_op.py"):
        if wanted not in names:
            fail(f"has no {wanted}")
    if len([name for name in names if re.search(r"/libspion\.so", name)]) != 1:
        fail("has not exactly one libspion.so")
    notices = [name for name in names if name.startswith("spion/third-party/")]
    for notice in NOTICES:
        if not any(notice in name for name in notices):
            fail(f"has no notice of {notice}, only {notices}")
    print(f"{wheel.name}: {size:.1f} MB, {len(notices)} notices")


def interpreters() -> list[str]:
    found = [shutil.which(f"python3.{minor}") for minor in MINORS]
    works = "import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 10))"
    return [
        name
        for name in found
        if name and subprocess.run([name, "-c", works], capture_output=True).returncode == 0
    ] or [sys.executable]


def check_use(wheel: pathlib.Path, interpreter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
        python = pathlib.Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"{wheel}[numpy]"], check=True)
        times = []
        for _ in range(5):
            told = subprocess.run(
                [python, "-c", USE], capture_output=True, text=True, cwd=folder, check=False
            )
            if told.returncode != 0:
                fail(f"cannot be used by {interpreter}:\n{told.stderr}")
            times.append(float(told.stdout))
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
        print(f"{version.stdout.strip()}: imported in {min(times):.0f} ms, computes")
        if min(times) > IMPORT_MS:
            fail(f"takes {min(times):.0f} ms to import, and at most {IMPORT_MS} are wanted")


def main() -> None:
    wheel = pathlib.Path(sys.argv[1]).resolve()
    check_contents(wheel)
    for interpreter in interpreters():
        check_use(wheel, interpreter)


if __name__ == "__main__":
    main()
