#!/usr/bin/env bash
# Hugging Face transformers takes packed sequences of gpt-oss for one. A row of several sequences end to
# end whose `position_ids` begin anew (what DataCollatorWithFlattening makes) is separated by most
# decoders' masks: logits of Llama's and Mistral's second sequence are those of the sequence alone. With
# gpt-oss, whose model hands no position_ids to create_causal_mask, each token attends to all earlier
# sequences of the row too, with attn_implementation="eager", where flash attention, which derives
# cu_seqlens from position_ids, keeps them apart. Nothing warns; training on such rows mixes documents.
#
# Seen with transformers 5.24.0 and torch 2.15.0 on the CPU (largest difference between logits of the
# second sequence in a row and alone, tiny random models of two layers):
#     Llama: 0.000
#     Mistral: 0.000
#     GptOss: 0.262
# Needs Python 3.10 or later with pip and venv, gcc, binutils, PyPI, and 2 GB of disk for a while.
# Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
# PyTorch's wheel without NVIDIA's libraries, which are not called here: empty ones stand in.
python3 -m venv "$scratch/python"
python="$scratch/python/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 typing-extensions sympy \
    networkx jinja2 fsspec filelock 'setuptools>=77.0.3' nvidia-cuda-runtime transformers==5.24.0
"$python" -m pip install --quiet --disable-pip-version-check --no-deps torch==2.15.0
libraries=$(echo "$scratch"/python/lib/python3*/site-packages/torch/lib)
nm -D --undefined-only "$libraries"/*.so* 2>"$scratch/no-symbols" | grep -v libcudart |
    grep -oP ' U \K(cu|nccl|nvrtc|nvshmem)\w+' | sort -u |
    sed 's/.*/int &(void) { return 1; }/' >"$scratch/absent.c"
for name in $(readelf -d "$libraries"/*.so* |
    grep -oP 'NEEDED.*\[\Klib(cu|nv|nccl)(?!dart\.|da\.)[^]]*' | sort -u); do
    case $name in *nvshmem*) version=NVSHMEM ;; *) version=$name ;; esac
    gcc -shared -w -Wl,-soname,"$name" -Wl,--version-script=<(echo "$version { *; };") \
        -o "$libraries/$name" "$scratch/absent.c"
done
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import sys

import torch
import transformers

ids = torch.randint(1, 50, (1, 40), generator=torch.Generator().manual_seed(1))
positions = torch.cat([torch.arange(24), torch.arange(16)])[None]


def difference(kind, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=128, **changes)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits[:, 24:]
        alone = model(ids[:, 24:], use_cache=False).logits
    found = (packed - alone).abs().max().item()
    print(f"{kind}: {found:.3f}")
    return found


separate = max(difference("Llama"), difference("Mistral", sliding_window=20)) < 1e-4
mixed = difference("GptOss", sliding_window=20, head_dim=16, num_local_experts=2,
                   num_experts_per_tok=2) > 1e-3
sys.exit(0 if separate and mixed else 1)
END_OF_PYTHON
OMP_NUM_THREADS=1 "$python" "$scratch/look.py" 2>"$scratch/warnings"
