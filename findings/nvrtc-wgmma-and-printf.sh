#!/usr/bin/env bash
# A kernel with wgmma that calls printf, assert or malloc anywhere, or a function through a pointer, has
# all of its products serialised: ptxas puts a wait behind each, where the source has one for all, and
# says that the "wgmma pipeline" is "crossing function boundary at a function call". None crosses: the
# call stands ahead of the first wgmma.fence, or after a wgmma.wait_group 0, under a condition, or in a
# function of its own without any wgmma, which the message then names. __trap() and a call of a function
# of the module (__noinline__), at the same places, cost nothing, although the latter is a call in machine
# code too. So a diagnosis that never prints makes another kernel of the one it was to explain. A printf
# in another kernel of the module does no harm.
#
# Seen with nvidia-cuda-nvrtc-cu12 12.4.127 and nvidia-cuda-nvrtc 13.5.37 (Linux, x86_64), sm_90a, by
# nvidia-cuda-nvdisasm 13.5.37; lines of both releases are the same:
#     printf ahead: 2 products, 2 waits, 1 calls (C7510 in f)
#     printf in a function, after: 2 products, 2 waits, 2 calls (C7510 in _Z3sayi)
#     assert after: 2 products, 2 waits, 1 calls (C7510 in f)
#     malloc ahead: 2 products, 2 waits, 1 calls (C7510 in f)
#     call by pointer, after: 2 products, 2 waits, 1 calls (C7510 in f)
#     __trap ahead: 2 products, 1 waits, 0 calls
#     call of a function, after: 2 products, 1 waits, 1 calls
#     printf in another kernel: 2 products, 1 waits, 1 calls
# Needs Python with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
for package in nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvrtc==13.5.37 \
    nvidia-cuda-nvdisasm==13.5.37; do
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
        --target "$scratch/${package%%==*}" "$package"
done
cat >"$scratch/look.py" <<'END'
import ctypes
import pathlib
import re
import subprocess
import sys

# Two products, one wait. The accumulators are touched ahead of the fence and after the wait alone.
SOURCE = """
__device__ void multiply(float (&d)[4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, "
                 "1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
}
__device__ void settle(float (&d)[4]) {  // no access of d moves across
    asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) :: "memory");
}
__device__ __noinline__ void mark(float* out) { out[512] = 1; }
__device__ __noinline__ void mark_twice(float* out) { out[512] = 2; }
__device__ __noinline__ void say(int n) { printf("%d", n); }
extern "C" __global__ void f(float* out, unsigned long long a, unsigned long long b, int n) {
    float d[4] = {};
    BEFORE
    settle(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    multiply(d, a, b);
    multiply(d, a + 2, b + 2);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    settle(d);
    for (int j = 0; j < 4; ++j) out[threadIdx.x * 4 + j] = d[j];
    AFTER
}
#ifdef OTHER
extern "C" __global__ void other(int n) { printf("%d", n); }
#endif
"""
PRINT = 'if (n < 0) printf("%d", n);'
FAIL = 'if (n < 0) __assertfail("n >= 0", "f.cu", 1, "f", 1);'  # what assert() calls
SERIALISED = {
    "printf ahead": (PRINT, ""),
    "printf after": ("", PRINT),
    "printf in a function, after": ("", "if (n < 0) say(n);"),
    "assert ahead": (FAIL, ""),
    "assert after": ("", FAIL),
    "malloc ahead": ("if (n < 0) out = (float*)malloc(4096);", ""),
    "call by pointer, after": ("", "(n < 0 ? mark : mark_twice)(out);"),
}
FREE = {
    "nothing": ("", ""),
    "__trap ahead": ("if (n < 0) __trap();", ""),
    "call of a function, ahead": ("if (n < 0) mark(out);", ""),
    "call of a function, after": ("", "if (n < 0) mark(out);"),
    "printf in another kernel": ("\n#define OTHER\n", ""),
}

scratch = pathlib.Path(sys.argv[1])
disassembler, = scratch.glob("nvidia-cuda-nvdisasm/nvidia/*/bin/nvdisasm")
disassembler.chmod(0o755)


def text(nvrtc, program, name):
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)) == 0
    content = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{name}")(program, content) == 0
    return content.raw


def look(nvrtc, before, after):
    program = ctypes.c_void_p()
    source = SOURCE.replace("BEFORE", before).replace("AFTER", after)
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"f.cu", 0, None,
                                    None) == 0
    options = [b"-arch=sm_90a", b"-Xptxas", b"-v"]
    assert nvrtc.nvrtcCompileProgram(program, len(options),
                                     (ctypes.c_char_p * len(options))(*options)) == 0
    said = re.search(r"\((C75\d\d)\).* in the function '(\w+)'", text(nvrtc, program, "ProgramLog")
                     .decode())
    (scratch / "f.cubin").write_bytes(text(nvrtc, program, "CUBIN"))
    code = subprocess.run([disassembler, "-c", scratch / "f.cubin"], check=True,
                          capture_output=True, text=True).stdout
    return (len(re.findall(r"\bHGMMA\b", code)), len(re.findall(r"\bWARPGROUP\.DEPBAR", code)),
            len(re.findall(r"\bCALL\b", code)), said and said.groups())


faults = 0
for package in ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
    file, = scratch.glob(f"{package}/nvidia/*/lib/libnvrtc.so.*")
    nvrtc = ctypes.CDLL(str(file))
    print(f"{package}:")
    for cases, expected in ((SERIALISED, 2), (FREE, 1)):
        for name, (before, after) in cases.items():
            products, waits, calls, said = look(nvrtc, before, after)
            print(f"    {name}: {products} products, {waits} waits, {calls} calls"
                  + (f" ({said[0]} in {said[1]})" if said else ""))
            faults += (products, waits) != (2, expected)
            faults += (said[0] if said else "") != ("C7510" if expected == 2 else "")
sys.exit(1 if faults else 0)
END
python3 "$scratch/look.py" "$scratch"
