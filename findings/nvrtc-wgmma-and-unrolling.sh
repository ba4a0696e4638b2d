#!/usr/bin/env bash
# Whether ptxas serialises the wgmma products of a loop, each with a wait of its own, can hang on how
# often the loop is unrolled, both ways, and the reasons that it gives do not fit the code:
# (1) A loop of two products and a wait for both, which then scales some elements of the accumulator, is
# serialised as soon as it is unrolled, which NVRTC does unasked, "due to insufficient register
# resources for the wgmma pipeline", of a kernel with 30 registers of 255 (so is m64n64k16 with half of
# its 32 elements scaled, of 58 registers). With #pragma unroll 1 it is not, nor unrolled when every
# element is scaled.
# (2) Two accumulators in turns, one of which is read while the other is computed (wgmma.wait_group 1:
# "N or fewer of the most recent wgmma-groups are pending and all the prior wgmma-groups committed by
# the executing threads are complete"), are serialised in a loop, "due to non wgmma instructions reading
# accumulator registers of a wgmma between start and end of the pipeline stage". Unrolled as a whole,
# the same statements are not. Every access of an accumulator in the source stands ahead of a
# wgmma.fence or behind the wait for it.
#
# Seen with nvidia-cuda-nvrtc-cu12 12.4.127 and nvidia-cuda-nvrtc 13.5.37 (Linux, x86_64), sm_90a, by
# nvidia-cuda-nvdisasm 13.5.37; lines of both releases are the same:
#     scaling 2 of 4 elements, as NVRTC unrolls: 10 products, waits for all 10, for all but one 0,
#         registers 30 (C7511)
#     scaling 2 of 4 elements, unroll 1: 2 products, waits for all 1, for all but one 0, registers 30
#     scaling 4 of 4 elements, as NVRTC unrolls: 10 products, waits for all 5, for all but one 0,
#         registers 30
#     turns, unroll 1: 3 products, waits for all 3, for all but one 0, registers 34 (C7514)
#     turns, unrolled as a whole: 9 products, waits for all 1, for all but one 8, registers 54
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

SOURCE = """
__device__ void multiply(float (&d)[4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, "
                 "1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
}
__device__ void settle(float (&d)[4]) {  // no access of d moves across
    asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) :: "memory");
}
__device__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(kPending) : "memory");
}

extern "C" __global__ void scaling(float* out, unsigned long long a, unsigned long long b, int n,
                                   float scale) {
    float d[4] = {};
    UNROLL
    for (int i = 0; i < n; ++i) {
        settle(d);
        fence();
        multiply(d, a + 4 * i, b + 4 * i);
        multiply(d, a + 4 * i + 2, b + 4 * i + 2);
        commit();
        wait<0>();
        settle(d);
        for (int j = 0; j < SCALED; ++j) d[j] *= scale;
    }
    for (int j = 0; j < 4; ++j) out[threadIdx.x * 4 + j] = d[j];
}

__device__ void start(float (&d)[4], unsigned long long a, unsigned long long b) {
    for (int j = 0; j < 4; ++j) d[j] = 0;
    settle(d);
    fence();
    multiply(d, a, b);
    commit();
}
template <int kPending>
__device__ float finish(float (&d)[4]) {
    wait<kPending>();
    settle(d);
    return d[0] + d[1] + d[2] + d[3];
}
extern "C" __global__ void turns(float* out, unsigned long long a, unsigned long long b) {
    float even[4], odd[4], sum = 0;
    start(even, a, b);
    UNROLL
    for (int i = 1; i < 9; i += 2) {
        start(odd, a + i, b + i);
        sum += finish<1>(even);
        start(even, a + i + 1, b + i + 1);
        sum += finish<1>(odd);
    }
    out[threadIdx.x] = sum + finish<0>(even);
}
"""
ONCE, WHOLE = "#pragma unroll 1", "#pragma unroll"
# Kernel, elements scaled, unrolling: the message.
CASES = {
    "scaling 2 of 4 elements, as NVRTC unrolls": ("scaling", 2, "", "C7511"),
    "scaling 2 of 4 elements, unroll 1": ("scaling", 2, ONCE, None),
    "scaling 4 of 4 elements, as NVRTC unrolls": ("scaling", 4, "", None),
    "turns, unroll 1": ("turns", 4, ONCE, "C7514"),
    "turns, unrolled as a whole": ("turns", 4, WHOLE, None),
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


def look(nvrtc, kernel, scaled, unrolling):
    program = ctypes.c_void_p()
    source = SOURCE.replace("UNROLL", unrolling).replace("SCALED", str(scaled))
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"f.cu", 0, None,
                                    None) == 0
    options = [b"-arch=sm_90a", b"-Xptxas", b"-v"]
    assert nvrtc.nvrtcCompileProgram(program, len(options),
                                     (ctypes.c_char_p * len(options))(*options)) == 0
    log = text(nvrtc, program, "ProgramLog").decode()
    said = re.search(rf"\((C75\d\d)\).* in the function '{kernel}'", log)
    used = re.search(rf"entry function '{kernel}'.*?Used (\d+) registers", log, re.S)
    (scratch / "f.cubin").write_bytes(text(nvrtc, program, "CUBIN"))
    code = subprocess.run([disassembler, "-c", scratch / "f.cubin"], check=True,
                          capture_output=True, text=True).stdout
    code, = [part for part in code.split(".section\t")[1:] if part.startswith(f".text.{kernel},")]
    waits = re.findall(r"\bWARPGROUP\.DEPBAR\.LE gsb0, 0x(\d)", code)
    return (len(re.findall(r"\bHGMMA\b", code)), waits.count("0"), waits.count("1"),
            int(used.group(1)), said and said.group(1))


faults = 0
for package in ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"):
    file, = scratch.glob(f"{package}/nvidia/*/lib/libnvrtc.so.*")
    nvrtc = ctypes.CDLL(str(file))
    print(f"{package}:")
    for name, (kernel, scaled, unrolling, expected) in CASES.items():
        products, all_done, all_but_one, registers, said = look(nvrtc, kernel, scaled, unrolling)
        print(f"    {name}: {products} products, waits for all {all_done}, for all but one "
              f"{all_but_one}, registers {registers}" + (f" ({said})" if said else ""))
        faults += said != expected
        faults += (all_done == products) != (expected is not None)
sys.exit(1 if faults else 0)
END
python3 "$scratch/look.py" "$scratch"
