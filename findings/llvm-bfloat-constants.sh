#!/usr/bin/env bash
# LLVM computes two operations on bfloat otherwise when it folds them than when they run on x86-64:
# llvm.fma.bf16 and sitofp to bfloat. The language reference defines one rounding of the exact
# result ("the same value as a corresponding libm fma function"; "rounded using the default rounding
# mode"). Constant folding does so; the code that is generated computes in float and rounds that to
# bfloat, two roundings, which may be one place off. So whether the optimiser sees an operand
# changes the result.
#
# Seen with llvmlite 0.50.0 (LLVM 22.1.0), x86-64:
#     fma.bf16(3, 87, 2^-20): folded 262, run 260 (exactly 261.00000095)
#     sitofp i32 273678337 to bfloat: folded 274726912, run 272629760
# Needs Python 3.10 or later with pip, gcc, x86-64 Linux, and PyPI. Exit code 1: a release does
# otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" llvmlite==0.50.0 numpy==2.4.6
# Conversions that compilers' run-time libraries have, correct of themselves; 16 bits go in xmm0.
cat >"$scratch/conversions.c" <<'END_OF_C'
#include <stdint.h>
#include <string.h>
static uint32_t bits_of(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
static float float_of(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
float __truncsfbf2(float x) {
    uint32_t bits = bits_of(x);
    return float_of((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
END_OF_C
gcc -O1 -shared -fPIC -o "$scratch/conversions.so" "$scratch/conversions.c"
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import ctypes
import re
import sys

import llvmlite.binding as llvm
import numpy as np

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
conversions = ctypes.CDLL(sys.argv[1])
llvm.add_symbol("__truncsfbf2",
                ctypes.cast(conversions.__truncsfbf2, ctypes.c_void_p).value)


def number(bits):
    return float(np.uint32(bits << 16).view(np.float32))


def bits_of(value):
    return int(np.float32(value).view(np.uint32)) >> 16


def fold(text):
    module = llvm.parse_assembly(text)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    builder.getModulePassManager().run(module, builder)
    return int(re.search(r"ret i16 (-?\d+)", str(module)).group(1)) & 0xFFFF


def run(text, types, values):
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_uint16, *types)(engine.get_function_address("f"))
    return function(*values)


def fma(values):
    names = ["%a", "%b", "%c"]
    body = "".join(f"{name}.value = bitcast i16 {{}} to bfloat\n" for name in names)
    body += ("%r = call bfloat @llvm.fma.bf16("
             "bfloat %a.value, bfloat %b.value, bfloat %c.value)\n"
             "%bits = bitcast bfloat %r to i16\nret i16 %bits\n}}\n"
             "declare bfloat @llvm.fma.bf16(bfloat, bfloat, bfloat)\n")
    bits = [bits_of(value) for value in values]
    folded = fold("define i16 @f() {\n" + body.format(*bits))
    text = "define i16 @f(i16 %a, i16 %b, i16 %c) {\n" + body.format(*names)
    return number(folded), number(run(text, [ctypes.c_uint16] * 3, bits))


def convert(value):
    body = "%r = sitofp i32 {} to bfloat\n%bits = bitcast bfloat %r to i16\nret i16 %bits\n}}\n"
    folded = fold("define i16 @f() {\n" + body.format(value))
    ran = run("define i16 @f(i32 %a) {\n" + body.format("%a"), [ctypes.c_int32], [value])
    return number(folded), number(ran)


rows = [
    ("fma.bf16(3, 87, 2^-20)", fma([3, 87, 2.0**-20]), (262, 260)),
    ("sitofp i32 273678337 to bfloat", convert(273678337), (274726912, 272629760)),
]
faults = 0
for name, (folded, ran), expected in rows:
    print(f"{name}: folded {folded:.0f}, run {ran:.0f}")
    faults += (folded, ran) != expected
sys.exit(1 if faults else 0)
END_OF_PYTHON
PYTHONPATH="$scratch/packages" python3 "$scratch/look.py" "$scratch/conversions.so"
