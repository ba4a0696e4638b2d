#!/usr/bin/env bash
# Whether NVRTC makes a kernel with more than 48 KiB of static shared memory depends on the release
# and on the target, in no order that one would guess, and a refusal gives no reason: the call ends
# with NVRTC_ERROR_COMPILATION, and the log holds what it holds for a good kernel (registers, bytes of
# smem) without a word of an error or a limit.
#
# Seen with one float more than 48 KiB (49156 bytes), Linux, x86_64:
#     12.6.85: sm_80 made, sm_90a made
#     12.9.86: sm_80 refused without a reason, sm_90a refused without a reason
#     13.5.37: sm_80 refused without a reason, sm_90a made
# (12.4.127 and 12.5.82 are as 12.6.85, 12.8.93 as 12.9.86, 13.0.88 as 13.5.37.) So a kernel that was
# only ever compiled for sm_90a with CUDA 13 fails on other machines, and nothing says why: keep static
# shared memory to 48 KiB, and ask for more as dynamic shared memory.
# Needs Python with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
for package in nvidia-cuda-nvrtc-cu12==12.6.85 nvidia-cuda-nvrtc-cu12==12.9.86 \
    nvidia-cuda-nvrtc==13.5.37; do
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
        --target "$scratch/${package##*==}" "$package"
done
cat >"$scratch/look.py" <<'END'
import ctypes
import pathlib
import sys

FLOATS = 48 * 1024 // 4 + 1
SOURCE = """
extern "C" __global__ void f(float* x) {
    __shared__ float rows[%d];
    for (int i = threadIdx.x; i < %d; i += 32) rows[i] = x[i];
    __syncthreads();
    x[threadIdx.x] = rows[%d - threadIdx.x];
}
""" % (FLOATS, FLOATS, FLOATS - 1)
EXPECTED = {
    ("12.6.85", "sm_80"): "made",
    ("12.6.85", "sm_90a"): "made",
    ("12.9.86", "sm_80"): "refused without a reason",
    ("12.9.86", "sm_90a"): "refused without a reason",
    ("13.5.37", "sm_80"): "refused without a reason",
    ("13.5.37", "sm_90a"): "made",
}

faults = 0
for (release, target), expected in EXPECTED.items():
    file, = pathlib.Path(sys.argv[1], release).glob("nvidia/*/lib/libnvrtc.so.*")
    nvrtc = ctypes.CDLL(str(file))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.encode(), b"f.cu", 0, None,
                                    None) == 0
    options = [f"-arch={target}".encode(), b"-Xptxas", b"-v"]
    result = nvrtc.nvrtcCompileProgram(program, len(options),
                                       (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.value.decode().lower()
    reason = any(word in text for word in ("error", "fatal", "too much", "limit", "exceed"))
    seen = "made" if result == 0 else f"refused {'with' if reason else 'without'} a reason"
    assert "49156 bytes smem" in text
    print(f"{release}: {target} {seen}")
    faults += seen != expected
sys.exit(1 if faults else 0)
END
python3 "$scratch/look.py" "$scratch"
