#!/usr/bin/env bash
# NVRTC makes a device variable of every constexpr of a namespace or a struct, even of one that the
# kernel never names: it stands in the PTX as .global with its value and in the cubin with a symbol,
# static or inline or in an unnamed namespace alike. Enumerators, constants of a function and variable
# templates leave nothing. With some fifty of them, cubins of 30 KiB were 4 to 15 % larger, of the
# same instructions.
#
# Seen with nvidia-cuda-nvrtc-cu12 12.4.127 and nvidia-cuda-nvrtc 13.5.37 (Linux, x86_64), sm_90a:
#     12.4.127: variables of constexpr 6, of the others 0, of gmem 24 bytes
#     13.5.37: variables of constexpr 6, of the others 0, of gmem 24 bytes
# Needs Python with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
for package in nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvrtc==13.5.37; do
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --root-user-action=ignore \
        --target "$scratch/${package##*==}" "$package"
done
cat >"$scratch/look.py" <<'END'
import ctypes
import pathlib
import re
import sys

SOURCE = """
constexpr int kPlain = 1;
static constexpr int kStatic = 2;
inline constexpr int kInline = 3;
constexpr int kNeverNamed = 4;
namespace { constexpr int kUnnamed = 5; }
struct Member { static constexpr int kOfStruct = 6; };
enum : int { kEnumerator = 7 };
template <typename T = void> constexpr int kTemplate = 8;
extern "C" __global__ void f(int* x) {
    constexpr int kLocal = 9;
    x[0] = kPlain + kStatic + kInline + kUnnamed + Member::kOfStruct;
    x[1] = kEnumerator + kTemplate<> + kLocal;
}
"""


def text(nvrtc, program, name):
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)) == 0
    bytes_ = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{name}")(program, bytes_) == 0
    return bytes_.value.decode()


faults = 0
for release in ("12.4.127", "13.5.37"):
    file, = pathlib.Path(sys.argv[1], release).glob("nvidia/*/lib/libnvrtc.so.*")
    nvrtc = ctypes.CDLL(str(file))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.encode(), b"f.cu", 0, None,
                                    None) == 0
    options = [b"-arch=sm_90a", b"-std=c++20", b"-Xptxas", b"-v"]
    assert nvrtc.nvrtcCompileProgram(program, len(options),
                                     (ctypes.c_char_p * len(options))(*options)) == 0
    variables = re.findall(r"^\.global .* (\S*k[A-Z]\w*) = \d+;$", text(nvrtc, program, "PTX"), re.M)
    others = [name for name in variables if re.search("kEnumerator|kTemplate|kLocal", name)]
    gmem = re.search(r"(\d+) bytes gmem", text(nvrtc, program, "ProgramLog")).group(1)
    print(f"{release}: variables of constexpr {len(variables) - len(others)}, of the others "
          f"{len(others)}, of gmem {gmem} bytes")
    faults += (len(variables), len(others), gmem) != (6, 0, "24")
sys.exit(1 if faults else 0)
END
python3 "$scratch/look.py" "$scratch"
