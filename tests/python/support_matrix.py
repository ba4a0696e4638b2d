"""docs/guide/support.md from the table of kernel families: what runs where, and by which bodies.

support_matrix.py write|check FILE
"""

import pathlib
import re
import sys

import spion

TARGETS = {
    "sm_80": "Ampere, compute capability 8.0",
    "sm_90a": "Hopper (H100, H200)",
    "sm_100": "Blackwell, 10.0",
    "sm_120": "Blackwell, 12.0",
    "host": "this CPU (x86-64)",
}
DTYPES, BLOCKS = ("bf16", "fp16", "tf32", "fp32"), (16, 32, 64, 128)
WIDTHS = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)
BODIES = {
    "wgmma_attention_gradients": "gradients",
    "attention_delta": "delta",
    "wgmma_": "wgmma",
    "warp_": "warps",
    "attention_": "mma",
}  # by how files begin
HEAD = """# What runs where

Generated from the table of kernel families (`codegen/kernel_families.cpp`) by
`tests/python/support_matrix.py`, which also checks that it is true. A cell says which bodies compute the
forward pass, dQ, and dK with dV (one word where they are the same) for widths D:

* **wgmma**: warpgroups and tensor copies of Hopper; **warps**: a warp a work item, Hopper; **mma**:
  mma.sync and fp32's units, any GPU from compute capability 8.0 on; **vectors**: the CPU's.
* **delta / gradients**, the fused backward: delta first, then one kernel for all gradients (Hopper, blocks of 128, or of any size
  where the command compiles for one full pattern; the wider of D and Dv from 40 to 128). It pays where a key block meets many query
  blocks, and what is shown is for sparse patterns of L = 1024: so no cell has it. Whether that way is taken is weighed for L and the
  `typical` pattern, and `plan.explain()` says which it was and why.
* Each has both softmax kinds, ragged lengths, padded keys, any pattern and any strides of 16 bytes;
  causal masks, and but for the fused backward masks of spans (windows, documents, prefixes, padded queries) and grouped heads, for
  which the bodies may be others: `plan.explain()` says which.
* So it is with dropout of probabilities, softcap, ALiBi slopes and sinks (with their gradient), in every way in: C, C++, NumPy,
  PyTorch, and Hugging Face but for slopes. All of these bodies have them, but three: delta / gradients has sinks alone, and warps,
  and wgmma where the wider of D and Dv is above 64, have no softcap in dK and dV. The split backward, or mma, is taken there, and mma
  also where several at once leave wgmma no registers above D = 64.
* Sequences end to end (varlen): in C, C++, NumPy, PyTorch, Hugging Face and the command, in all bodies but the fused backward; one
  pattern, cut to each sequence, or patterns of each sequence's own, and keys that are sequences of their own, but in Hugging Face, where
  there is one pattern and as many keys as queries.
* V and O may be Dv wide and Q and K D: in C, C++, NumPy, PyTorch and the command, in all bodies. The wider of the two decides which, as
  tiles of Q, K, V and O are equally wide.
* A bias by relative position with its gradient (`relative_bias`, docs/ir.md): in C, C++, NumPy, PyTorch and the command, in all
  bodies but the fused backward and dK and dV of warps. Discovery from Q and K has none.
* A user's expression of scores (`score`, docs/ir.md): in every way in; in all bodies but delta / gradients, and dK and dV of
  warps and of wgmma where the wider of D and Dv is above 64.
* Another number of keys than of queries is in every way in too, and in all bodies; so are patterns of heads, but for the fused backward. A
  pattern a query head under grouped heads has dK and dV by mma.sync (or the CPU) alone, and by the CPU alone where the wider of D and Dv is
  168 or more (136 for 4-byte types).
* Refused by a sentence: other dtypes, other blocks, D or Dv that is no multiple of 8 from 16 to 256; discovery from Q and K with masks
  of spans, sequences end to end, another number of keys, a bias or an expression of scores.
* `libspion_torch.so` (PyTorch without Python) has the same operators as `spion.torch`, without gradients of its own.
* Kernels for compute capabilities 10.0 and 12.0 are compiled and have never run.
* PyTorch: tested with 2.15 (every run of the tests) and, the oldest promised, 2.10 on the host.
"""


def body(attention: spion.Attention, target: str, kernel: str) -> str:
    source = spion.emit(attention, target, kernel=kernel)
    if target == "host":
        return "vectors"
    found = re.findall(r'#include "kernels/cuda/\w+/(\w+)\.cuh"', source)
    for name, short in BODIES.items():
        if any(one.startswith(name) for one in found):
            return short
    raise SystemExit(f"no family's body is included by {kernel} for {target}: {found}")


def cell(target: str, dtype: str, block: int, width: int) -> str:
    attention = spion.Attention(heads=2, head_dim=width, length=1024, block=block, dtype=dtype)
    kernels = ("forward", "backward_first", "backward_second")
    try:
        bodies = [body(attention, target, kernel) for kernel in kernels]
    except spion.UserError as error:
        if target == "host" and dtype != "fp32":
            return "-"
        raise SystemExit(f"{target} {dtype} block {block} D {width}: {error}") from error
    return bodies[0] if len(set(bodies)) == 1 else " / ".join(bodies)


def cells(target: str, dtype: str, block: int) -> str:
    """Widths with the same bodies together: "16: mma; 32 to 64: warps"."""
    runs: list[list] = []
    for width in WIDTHS:
        now = cell(target, dtype, block, width)
        if runs and runs[-1][2] == now:
            runs[-1][1] = width
        else:
            runs.append([width, width, now])
    if len(runs) == 1:
        return runs[0][2]
    names = (f"{a}: {what}" if a == b else f"{a} to {b}: {what}" for a, b, what in runs)
    return "; ".join(names)


def document() -> str:
    lines = [HEAD]
    for target, name in TARGETS.items():
        lines += [f"## {name}: `{target}`", ""]
        lines += ["| dtype | " + " | ".join(f"block {block}" for block in BLOCKS) + " |"]
        lines += ["|---" * (len(BLOCKS) + 1) + "|"]
        for dtype in DTYPES:
            row = [cells(target, dtype, block) for block in BLOCKS]
            if row != ["-"] * len(BLOCKS):
                lines.append(f"| {dtype} | " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    file = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "write":
        file.write_text(document())
    elif file.read_text() != document():
        sys.exit(f"{file} is not what the families say: make it again by support_matrix.py write")


if __name__ == "__main__":
    main()
