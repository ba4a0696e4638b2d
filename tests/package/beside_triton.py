"""libspion.so in one process with Triton, whose library exports an LLVM of its own to everybody
(RTLD_GLOBAL): both compile, in either order.

    beside_triton.py LIBSPION FOLDER ours-first|theirs-first

FOLDER is where Triton's wheel is kept; it is fetched from PyPI once. No GPU is needed: Triton is made
to compile for sm_90, ours for the host.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
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


def theirs() -> int:
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


def ours(library: ctypes.CDLL) -> int:
    """The size of an object that spion makes for this CPU, through its LLVM."""
    library.spion_last_error.restype = ctypes.c_char_p
    library.spion_blob_size.restype = ctypes.c_size_t
    fp32, forward, binary = 2, 0, 5
    attention = Attention(ctypes.sizeof(Attention), 2, 32, 256, 64, fp32, 0.0, 0)
    blob = ctypes.c_void_p()
    status = library.spion_emit(ctypes.byref(attention), None, b"host", forward, binary, ctypes.byref(blob))
    if status != 0:
        sys.exit(f"spion_emit: {library.spion_last_error().decode()}")
    size = library.spion_blob_size(blob)
    library.spion_blob_release(blob)
    return size


def main() -> None:
    library_path, folder, order = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(unpacked(folder)))
    os.environ["TRITON_CACHE_DIR"] = str(folder / f"triton-cache-{os.getpid()}")
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    sizes = {}
    if order == "ours-first":
        library = ctypes.CDLL(library_path, mode=os.RTLD_LOCAL)
        sizes["ours"], sizes["theirs"] = ours(library), theirs()
    elif order == "theirs-first":
        sizes["theirs"] = theirs()
        sizes["ours"] = ours(ctypes.CDLL(library_path, mode=os.RTLD_LOCAL))
    else:
        sys.exit(f"the order is '{order}': take ours-first or theirs-first")
    print(sizes)
    if min(sizes.values()) < 500:
        sys.exit("one of the two compilers made next to nothing")


main()
