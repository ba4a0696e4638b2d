#!/usr/bin/env bash
# A product of two 32-bit factors, (uint64_t)a * b, is one instruction on NVIDIA GPUs: mul.wide.u32 in
# PTX, IMAD.WIDE.U32 in machine code. NVRTC makes it so, but not where a factor is the upper half of
# another such product, alone or put together with the lower half, as fixed-point arithmetic, hashes and
# random number generators have it. There the 32 bits are widened by what is left of the shift: PTX
# multiplies 64 by 64 bits (mul.lo.s64), and ptxas, which knows that the upper factors are zero and
# multiplies once, still adds them to the result, a register of zero. The same product written as
# __umulhi(a, b) and a * b, twice the operations in the source, or as mul.wide.u32 in asm has no such
# addition, nor has an upper half that meets a word of another origin. All results are equal. Where a
# round waits for the one before, as here, the addition is a third instruction in a chain of two.
#
# Seen with nvidia-cuda-nvrtc-cu12 12.4.127 and nvidia-cuda-nvrtc 13.5.37 (Linux, x86_64), sm_90a, by
# nvidia-cuda-nvdisasm 13.5.37; lines of both releases are the same (sm_80 and sm_120 do so too):
#     high ^ low, (uint64_t)a * b: 34 instructions, 7 mul.lo.s64 in PTX, 7 additions
#     high ^ low, __umulhi and a * b: 25 instructions, 0 mul.lo.s64 in PTX, 0 additions
#     high ^ low, mul.wide.u32: 25 instructions, 0 mul.lo.s64 in PTX, 0 additions
#     high, (uint64_t)a * b: 25 instructions, 7 mul.lo.s64 in PTX, 7 additions
#     high, __umulhi and a * b: 17 instructions, 0 mul.lo.s64 in PTX, 0 additions
#     high, mul.wide.u32: 17 instructions, 0 mul.lo.s64 in PTX, 0 additions
#     high ^ key, (uint64_t)a * b: 25 instructions, 0 mul.lo.s64 in PTX, 0 additions
# (The last is what the other two products give as well.)
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

PRODUCTS = {
    "(uint64_t)a * b": "return (wide)a * b;",
    "__umulhi and a * b": "return (wide)__umulhi(a, b) << 32 | a * b;",
    "mul.wide.u32": 'wide p; asm("mul.wide.u32 %0, %1, %2;" : "=l"(p) : "r"(a), "r"(b)); return p;',
}
NEXT = {
    "high ^ low": "(unsigned)(p >> 32) ^ (unsigned)p",
    "high": "(unsigned)(p >> 32)",
    "high ^ key": "(unsigned)(p >> 32) ^ key",
}
SOURCE = """
using wide = unsigned long long;
__device__ wide product(unsigned a, unsigned b) {{ {product} }}
extern "C" __global__ void f(unsigned* out, unsigned x, unsigned key) {{
    x ^= threadIdx.x;
#pragma unroll
    for (int round = 0; round < 8; ++round) {{
        const wide p = product(x, 0xD2511F53u);
        x = {next};
    }}
    out[threadIdx.x] = x;
}}
"""


def compiled(nvrtc, source):
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"f.cu", 0, None,
                                    None) == 0
    options = (ctypes.c_char_p * 1)(b"-arch=sm_90a")
    assert nvrtc.nvrtcCompileProgram(program, 1, options) == 0
    results = []
    for name in ("PTX", "CUBIN"):
        size = ctypes.c_size_t()
        assert getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)) == 0
        content = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{name}")(program, content) == 0
        results.append(content.raw)
    return results


scratch = pathlib.Path(sys.argv[1])
disassembler, = scratch.glob("nvidia-cuda-nvdisasm/nvidia/*/bin/nvdisasm")
disassembler.chmod(0o755)


def machine_code(cubin):
    file = scratch / "f.cubin"
    file.write_bytes(cubin)
    text = subprocess.run([disassembler, "-c", file], check=True, capture_output=True, text=True)
    names = re.findall(r"/\*[0-9a-f]{4}\*/\s+(?:@!?\w+ )?([A-Z][\w.]*)", text.stdout)
    return [name for name in names if name not in ("NOP", "BRA")]  # what only fills up the end


faults = 0
for package in ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
    file, = scratch.glob(f"{package}/nvidia/*/lib/libnvrtc.so.*")
    nvrtc = ctypes.CDLL(str(file))
    print(f"{package}:")
    for use, following in NEXT.items():
        counts = {}
        for name, product in PRODUCTS.items():
            ptx, cubin = compiled(nvrtc, SOURCE.format(product=product, next=following))
            code = machine_code(cubin)
            wide = ptx.count(b"mul.lo.s64")
            added = sum(re.match("V?IADD", instruction) is not None for instruction in code)
            print(f"    {use}, {name}: {len(code)} instructions, {wide} mul.lo.s64 in PTX, "
                  f"{added} additions")
            counts[name] = (len(code), wide, added)
        plain, *others = counts.values()
        if use != "high ^ key":
            faults += plain[1:] != (7, 7)
            faults += any(plain[0] < other[0] + 7 or other[1:] != (0, 0) for other in others)
        else:
            faults += any(count[1:] != (0, 0) for count in counts.values())
sys.exit(1 if faults else 0)
END
python3 "$scratch/look.py" "$scratch"
