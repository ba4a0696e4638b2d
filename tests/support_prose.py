"""Does docs/guide/support.md say of kernels what the compiler does?

    support_prose.py SPION ROOT

CLAIMS has sentences of that page, word by word, each with what shows it: `spion compile` of an operation
takes the bodies that the sentence names, or refuses it by words. The tables of the page are held by tests/python/support_matrix.py.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

FUSED = "--block 128 --length 8192 --pattern-random 1"  # where all gradients come from one kernel
WARPS = "--block 32 --length 1024 --pattern-random 0.1"
WGMMA = "--block 64 --length 1024 --pattern-random 0.1"
A_HEAD = "--pattern-heads query"
OWN = A_HEAD + " --kv-heads 1"  # two query heads on one of K and V, a pattern each
REFUSED = "have dV and dK computed one after the other, on GPUs"

# (sentence, [(flags, the kernel that is looked at, how its body begins; or None and words of the refusal)])
CLAIMS = [
    (
        "one kernel for all gradients (Hopper, blocks of 128, or of any size where the command compiles for one full "
        "pattern; the wider of D and Dv from 40 to 128)",
        [
            (f"{FUSED}", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --head-dim 40", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --head-dim 128 --value-dim 16", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --head-dim 32", "key_value_gradient", "wgmma_"),
            (f"{FUSED} --head-dim 136", "key_value_gradient", "attention_"),
            (f"{FUSED} --block 64", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --block 64 --pattern-random .9", "key_value_gradient", "wgmma_"),
            (f"{FUSED} --target sm_80", "key_value_gradient", "attention_"),
        ],
    ),
    (
        "causal masks, and but for the fused backward masks of spans (windows, documents, prefixes, padded queries) "
        "and grouped heads",
        [
            (f"{FUSED} --causal", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --window 100,100", "key_value_gradient", "wgmma_"),
            (f"{FUSED} --kv-heads 1", "key_value_gradient", "wgmma_"),
            (f"{WARPS} --window 100,100", "query_gradient", "warp_"),
        ],
    ),
    (
        "delta / gradients has sinks alone, and warps, and wgmma where the wider of D and Dv is above 64, have no "
        "softcap in dK and dV",
        [
            (f"{FUSED} --sink", "gradients", "wgmma_attention_gradients"),
            (f"{FUSED} --dropout .1", "key_value_gradient", "wgmma_"),
            (f"{FUSED} --softcap 30", "key_value_gradient", "wgmma_"),
            (f"{FUSED} --alibi", "key_value_gradient", "wgmma_"),
            (f"{WARPS} --softcap 30", "key_value_gradient", "attention_"),
            (f"{WARPS} --softcap 30", "query_gradient", "warp_"),
            (f"{WARPS} --alibi --dropout .1 --sink", "key_value_gradient", "warp_"),
            (f"{WGMMA} --softcap 30", "key_value_gradient", "wgmma_"),
            (f"{WGMMA} --softcap 30 --value-dim 72", "key_value_gradient", "attention_"),
            (f"{WGMMA} --softcap 30 --value-dim 72", "query_gradient", "wgmma_"),
            (f"{WGMMA} --alibi --sink --head-dim 128", "key_value_gradient", "wgmma_"),
            (f"{WGMMA} --dropout .1 --head-dim 128", "key_value_gradient", "wgmma_"),
            (
                f"{WGMMA} --softcap 30 --alibi --dropout .1 --sink --relative-bias 8 --window 50,50 --head-dim 128",
                "query_gradient",
                "attention_",
            ),
        ],
    ),
    (
        "Sequences end to end (varlen): in C, C++, NumPy, PyTorch, Hugging Face and the command, in all bodies but "
        "the fused backward",
        [
            (f"{FUSED} --sequences", "key_value_gradient", "wgmma_"),
            (f"{WARPS} --sequences", "key_value_gradient", "warp_"),
        ],
    ),
    (
        "in all bodies. The wider of the two decides which",
        [
            (f"{WGMMA} --head-dim 16 --value-dim 64", "forward", "wgmma_"),
            (f"{WGMMA} --head-dim 128 --value-dim 136", "forward", "attention_"),
            (f"{WARPS} --head-dim 64 --value-dim 32", "forward", "warp_"),
        ],
    ),
    (
        "in all bodies but the fused backward and dK and dV of warps. Discovery",
        [
            (f"{FUSED} --relative-bias 8", "key_value_gradient", "wgmma_"),
            (f"{WARPS} --relative-bias 8", "key_value_gradient", "attention_"),
            (f"{WARPS} --relative-bias 8", "query_gradient", "warp_"),
            (f"{WGMMA} --relative-bias 8 --head-dim 128", "key_value_gradient", "wgmma_"),
        ],
    ),
    (
        "in all bodies but delta / gradients, and dK and dV of warps and of wgmma where the wider of D and Dv is "
        "above 64.",
        [
            (f"{FUSED} --score score*2", "key_value_gradient", "wgmma_"),
            (f"{WARPS} --score score*2", "key_value_gradient", "attention_"),
            (f"{WARPS} --score score*2", "query_gradient", "warp_"),
            (f"{WGMMA} --score score*2", "key_value_gradient", "wgmma_"),
            (f"{WGMMA} --score score*2 --head-dim 72", "key_value_gradient", "attention_"),
            (f"{WGMMA} --score score*2 --head-dim 72", "query_gradient", "wgmma_"),
        ],
    ),
    (
        "Another number of keys than of queries is in every way in too, and in all bodies; so are patterns of heads, "
        "but for the fused backward.",
        [
            (f"{FUSED} --kv-length 4096", "gradients", "wgmma_attention_gradients"),
            (f"{WARPS} --kv-length 2048", "forward", "warp_"),
            (f"{FUSED} {A_HEAD}", "key_value_gradient", "wgmma_"),
            (f"{WARPS} {A_HEAD}", "key_value_gradient", "warp_"),
        ],
    ),
    (
        "A pattern a query head under grouped heads has dK and dV by mma.sync (or the CPU) alone, and by the CPU alone "
        "where the wider of D and Dv is 168 or more (136 for 4-byte types).",
        [
            (f"{WGMMA} {OWN}", "query_gradient", "wgmma_"),
            (f"{WGMMA} {OWN}", "key_value_gradient", "attention_"),
            (f"{WGMMA} {OWN} --head-dim 160", "key_value_gradient", "attention_"),
            (f"{WGMMA} {OWN} --head-dim 168", None, f"D=168 and Dv=168 in bf16 {REFUSED}"),
            (f"{WGMMA} {OWN} --head-dim 16 --value-dim 168", None, f"Dv=168 in bf16 {REFUSED}"),
            (f"{WGMMA} {OWN} --dtype tf32 --head-dim 128", "key_value_gradient", "attention_"),
            (f"{WGMMA} {OWN} --dtype tf32 --head-dim 136", None, f"in tf32 {REFUSED}"),
        ],
    ),
    (
        "Refused by a sentence: other dtypes, other blocks, D or Dv that is no multiple of 8 from 16 to 256;",
        [
            (f"{WGMMA} --dtype fp8", None, "dtype 'fp8' is not known: use fp32, tf32, bf16 or fp16"),
            (f"{WGMMA} --block 48", None, "block 48 is not allowed: use 16, 32, 64 or 128"),
            (f"{WGMMA} --head-dim 20", None, "use a multiple of 8 from 16 to 256"),
            (f"{WGMMA} --value-dim 264", None, "use a multiple of 8 from 16 to 256"),
        ],
    ),
]


def compiled(spion: str, flags: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Of two heads, for Hopper unless `flags` say otherwise; the last of a flag that is given twice counts."""
    asked = ["--heads", "2", "--target", "sm_90a", *flags.split()]
    command = [spion, "compile", *asked, "--emit", "cuda", "-o", str(folder)]
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def fault(spion: str, flags: str, kernel: str | None, words: str) -> str:
    """What is otherwise than a claim says; "" when nothing is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        done = compiled(spion, flags, folder)
        if kernel is None:
            refused = done.returncode == 2 and words in done.stderr
            return "" if refused else f"exit code {done.returncode}, wanted 2 and '{words}': {done.stderr}"
        if done.returncode != 0:
            return f"exit code {done.returncode}: {done.stderr}"
        sources = list(folder.glob(f"attention_{kernel}-*/kernel.cu"))
        if len(sources) != 1:
            return f"{len(sources)} kernels are {kernel}: {sorted(file.name for file in folder.iterdir())}"
        bodies = re.findall(r'#include "kernels/cuda/\w+/(\w+)\.cuh"', sources[0].read_text())
        if not any(body.startswith(words) for body in bodies):
            return f"{kernel} is of {bodies}, wanted {words}"
    return ""


def main() -> None:
    spion, root = sys.argv[1], pathlib.Path(sys.argv[2])
    page = " ".join((root / "docs" / "guide" / "support.md").read_text().split())
    wrong = []
    for sentence, shown in CLAIMS:
        if sentence not in page:
            wrong.append(f"support.md does not say: {sentence}")
        for flags, kernel, words in shown:
            found = fault(spion, flags, kernel, words)
            wrong += [f"support.md says: {sentence}\n  but of {flags}: {found}"] if found else []
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
