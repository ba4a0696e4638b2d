"""libspion.so in one process with Triton, whose library exports an LLVM of its own, or with PyTorch, with
all that they export given to everybody (RTLD_GLOBAL): both work, in either order.

    beside.py LIBSPION triton|torch ours-first|theirs-first [TARGET]

Triton's wheel is fetched from PyPI once and kept in $SPION_TEST_LIBRARIES, else
spion-test-libraries of the user's cache; PyTorch is the one that Python finds, or that of a Python that
lies there as python-torch-*. No GPU is needed: Triton is made to compile for sm_90, PyTorch multiplies on
the host (and on a GPU that is there), ours compiles for TARGET (host unless given).
"""

import ctypes
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

TRITON = "triton==3.6.0"


def unpacked(folder: pathlib.Path) -> pathlib.Path:
    site = folder / TRITON.replace("==", "-")
    if not (site / "triton").is_dir():
        wheels = folder / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels,
                        "--only-binary=:all:", TRITON], check=True)
        part = site.with_suffix(f".part{os.getpid()}")
        zipfile.ZipFile(next(wheels.glob("triton-*.whl"))).extractall(part)
        for program in (part / "triton/backends/nvidia/bin").iterdir():
            program.chmod(0o755)
        try:
            part.rename(site)
        except OSError:  # another process was faster
            pass
    return site


def torch_works() -> int:
    """Elements of a gradient of PyTorch's."""
    import torch

    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        a = torch.randn(64, 64, device=device, requires_grad=True)
        (a @ a.T / 64).exp().sum().backward()
        if not torch.isfinite(a.grad).all():
            sys.exit(f"PyTorch's gradient on {device} is not finite")
    return a.grad.numel()


def triton_works() -> int:
    """The size of a cubin that Triton makes."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def double(source, target, count: tl.constexpr):
        at = tl.arange(0, count)
        tl.store(target + at, tl.load(source + at) * 2)

    kernel = triton.JITFunction(double)
    source = ASTSource(fn=kernel, signature={"source": "*fp32", "target": "*fp32", "count": "constexpr"},
                       constexprs={"count": 64})
    return len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"])


class Attention(ctypes.Structure):
    """spion_attention of include/spion/spion_c.h, up to the fields that are set here."""

    _fields_ = [("size", ctypes.c_size_t), ("heads", ctypes.c_int32), ("head_dim", ctypes.c_int32),
                ("length", ctypes.c_int64), ("block", ctypes.c_int32), ("dtype", ctypes.c_int32),
                ("scale", ctypes.c_float), ("softmax", ctypes.c_int32)]


def ours(path: str, target: str) -> int:
    """The size of what spion compiles: for the host an object, through its LLVM."""
    library = ctypes.CDLL(path, mode=os.RTLD_LOCAL)
    library.spion_last_error.restype = ctypes.c_char_p
    library.spion_blob_size.restype = ctypes.c_size_t
    bf16, fp32, forward, binary = 0, 2, 0, 5
    dtype = fp32 if target == "host" else bf16
    attention = Attention(ctypes.sizeof(Attention), 2, 32, 256, 64, dtype, 0.0, 0)
    blob = ctypes.c_void_p()
    status = library.spion_emit(ctypes.byref(attention), None, target.encode(), forward, binary, ctypes.byref(blob))
    if status != 0:
        sys.exit(f"spion_emit: {library.spion_last_error().decode()}")
    size = library.spion_blob_size(blob)
    library.spion_blob_release(blob)
    return size


def main(scratch: str) -> None:
    path, name, order = sys.argv[1:4]
    target = sys.argv[4] if len(sys.argv) > 4 else "host"
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(os.environ.get("SPION_TEST_LIBRARIES") or pathlib.Path(cache) / "spion-test-libraries")
    if name == "triton":
        folder.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(unpacked(folder)))
        os.environ["TRITON_CACHE_DIR"] = scratch
    elif importlib.util.find_spec("torch") is None:
        for done in folder.glob("python-torch-*/complete"):
            python = done.parent / "bin/python"
            os.execv(python, [str(python), *sys.argv])
        sys.exit("there is no PyTorch")
    theirs = {"triton": triton_works, "torch": torch_works}[name]
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    sizes = {}
    if order == "ours-first":
        sizes["ours"], sizes["theirs"], sizes["ours again"] = ours(path, target), theirs(), ours(path, target)
    elif order == "theirs-first":
        sizes["theirs"], sizes["ours"], sizes["theirs again"] = theirs(), ours(path, target), theirs()
    else:
        sys.exit(f"the order is '{order}': take ours-first or theirs-first")
    print(sizes)
    if min(sizes.values()) < 500:
        sys.exit("one of the two made next to nothing")


with tempfile.TemporaryDirectory() as scratch_folder:
    main(scratch_folder)
