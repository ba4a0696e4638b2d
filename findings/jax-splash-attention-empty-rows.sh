#!/usr/bin/env bash
# JAX's block-sparse TPU attention (jax.experimental.pallas.ops.tpu.splash_attention) returns gradients
# of rows without a key that are not those of its own forward pass. Such rows come from a mask row that
# is empty, from segments of queries that no key has, or from windows of more queries than keys.
# Forward, the row is the mean of V over the key blocks that the kernel visits (so it changes with the
# block size). Its log-sum-exp is the mask's value of -1.7e38 with the logarithm rounded away; backward,
# exp(score - log-sum-exp) is therefore 1 for every visited key instead of 1 / keys: dV is as many times
# too large as there are keys, and dQ, which should be 0, is of the size of K's sums.
#
# Seen with jax 0.10.2, interpreted on the CPU, 256 queries and keys, query 5 masked, loss o[5, 0]:
#     o[5] is the mean of 256 rows of V: True
#     gradient of V[k, 0]: 1.0000, by differences 0.0039
#     largest gradient of Q[5]: 42.1, by differences 0.0
# Needs Python 3.11 or later with pip and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" jax==0.10.2 numpy==2.4.6
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import jax
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

length, width, row = 256, 128, 5
random = np.random.default_rng(0)
q, k, v = (random.standard_normal((1, length, width)).astype(np.float32) for _ in range(3))
kept = np.ones((length, length), dtype=bool)
kept[row] = False
blocks = {name: 128 for name in ("block_q", "block_kv", "block_kv_compute", "block_q_dkv",
                                 "block_kv_dkv", "block_kv_dkv_compute", "block_q_dq",
                                 "block_kv_dq")}
attention = kernel.make_splash_mha(masks.MultiHeadMask([masks.NumpyMask(kept)]), head_shards=1,
                                   q_seq_shards=1, block_sizes=kernel.BlockSizes(**blocks),
                                   interpret=True)


def loss(q, v):
    return attention(q, k, v)[0, row, 0]


def difference(of, at):
    step = np.zeros((1, length, width), dtype=np.float32)
    step[at] = 0.5
    up, down = ((q + step, v), (q - step, v)) if of == "q" else ((q, v + step), (q, v - step))
    return float(loss(*up) - loss(*down))


is_mean = np.allclose(attention(q, k, v)[0, row], v[0].mean(0), atol=1e-5)
d_q, d_v = jax.grad(loss, (0, 1))(q, v)
place = (0, row, int(np.abs(d_q[0, row]).argmax()))
print(f"o[5] is the mean of 256 rows of V: {is_mean}")
print(f"gradient of V[k, 0]: {d_v[0, 9, 0]:.4f}, by differences {difference('v', (0, 9, 0)):.4f}")
print(f"largest gradient of Q[5]: {abs(d_q[place]):.1f}, "
      f"by differences {abs(difference('q', place)):.1f}")
END_OF_PYTHON
JAX_PLATFORMS=cpu PYTHONPATH="$scratch/packages" python3 "$scratch/look.py" | tee "$scratch/seen"
grep -qx 'o\[5\] is the mean of 256 rows of V: True' "$scratch/seen"
grep -qx 'gradient of V\[k, 0\]: 1.0000, by differences 0.0039' "$scratch/seen"
grep -qE '^largest gradient of Q\[5\]: [1-9][0-9.]+, by differences 0.0$' "$scratch/seen"
