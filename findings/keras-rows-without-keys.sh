#!/usr/bin/env bash
# What a query whose keys are all masked gets from keras.ops.dot_product_attention depends on the
# backend. JAX, TensorFlow and PyTorch replace masked scores by a large negative number, so that the
# row comes out as the mean of V over ALL keys, the masked ones included, and its gradient reaches
# what lies in the padding. OpenVINO, to which Keras hands the boolean mask, gives NaN. A padded query
# (mask=queries & keys), or a causal mask beside one of keys padded in front, has such rows; the
# documentation of the operation does not speak of them.
#
# Seen with keras 3.15.1, jax 0.10.2 and openvino 2026.4.1 on the CPU (query 0 of 8 has no key):
#     jax: row 0 lies 3.0e-08 from the mean of V, gradient of V at masked keys 0.125
#     openvino: row 0 is NaN, the other rows are as JAX's
# Needs Python 3.11 or later with pip and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" keras==3.15.1 jax==0.10.2 openvino==2026.4.1 numpy==2.4.6
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import keras
import numpy as np

random = np.random.default_rng(0)
q, k, v = (random.standard_normal((1, 8, 1, 16)).astype(np.float32) for _ in range(3))
mask = np.ones((1, 1, 8, 8), dtype=bool)
mask[:, :, 0] = False  # [B, H, L, Lk]: query 0 has no key
mask[:, :, :, 6:] = False  # two keys of padding


def attention(values):
    return keras.ops.dot_product_attention(q, k, values, mask=mask)


rows = keras.ops.convert_to_numpy(attention(v))[0, :, 0]
np.save(f"{keras.backend.backend()}.npy", rows)
if keras.backend.backend() == "jax":
    import jax

    print(f"distance {np.abs(rows[0] - v[0, :, 0].mean(0)).max():.1e}")
    gradient = jax.grad(lambda values: attention(values)[0, 0].sum())(v)
    print(f"gradient {np.abs(gradient[0, 6:]).max():.3f}")
else:
    others = np.abs(rows[1:] - np.load("jax.npy")[1:]).max()
    print(f"NaN {np.isnan(rows[0]).all()}, others as JAX's {others < 1e-5}")
END_OF_PYTHON
cd "$scratch"
for backend in jax openvino; do
    KERAS_BACKEND=$backend JAX_PLATFORMS=cpu PYTHONPATH="$scratch/packages" python3 look.py \
        2>"$scratch/$backend.log" | tee -a seen || { cat "$scratch/$backend.log"; exit 1; }
done
grep -qE '^distance [0-9.]+e-(0[789]|1[0-9])$' seen
grep -qx 'gradient 0.125' seen
grep -qx "NaN True, others as JAX's True" seen
