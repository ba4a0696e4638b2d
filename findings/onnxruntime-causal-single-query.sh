#!/usr/bin/env bash
# ONNX Runtime on the CPU forgets is_causal=1 of the operator Attention when there is one query and
# a cache of earlier keys comes by past_key: the query then attends keys that lie after it. The
# standard (opset 23 and 24) says that query i attends key j iff j <= i + past_sequence_length, of
# any lengths; with two queries, and with one query and no cache, ONNX Runtime does just that, so
# the same first query gives two results. Nothing warns.
#
# Seen with onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; keys: 2 of the cache and 3 new ones, of
# which the first query may see one (weight given to the two keys after it, and difference to
# float64):
#     opset 23, 1 query: weight of later keys 0.22, away from float64 0.40
#     opset 23, 2 queries: weight of later keys 0.00, away from float64 0.00
#     opset 23, 1 query, no cache: weight of later keys 0.00, away from float64 0.00
# Needs Python 3.11 or later with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

NEW, WIDTH = 3, 8
random = np.random.default_rng(3)


def tensor(length):
    return random.standard_normal((1, 1, length, WIDTH)).astype(np.float32)


queries, k, v = tensor(2), tensor(NEW), tensor(NEW)
earlier = {2: (tensor(2), tensor(2)), 0: (tensor(0), tensor(0))}


def first_query(opset, count, past):
    """Output and softmax's weights of the first of `count` queries."""
    feeds = {"Q": queries[:, :, :count], "K": k, "V": v}
    inputs, outputs = list(feeds), ["Y", "", "", "weights"]
    if past:
        feeds["past_k"], feeds["past_v"] = earlier[past]
        inputs, outputs = [*inputs, "", "past_k", "past_v"], ["Y", "all_k", "all_v", "weights"]
    node = helper.make_node("Attention", inputs, outputs, is_causal=1, qk_matmul_output_mode=3)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
              for name, array in feeds.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
               for name in outputs if name]
    model = helper.make_model(helper.make_graph([node], "attention", values, results),
                              opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    output, *_, weights = session.run(None, feeds)
    return output[0, 0, 0], weights[0, 0, 0]


faults = 0
for opset in (23, 24):
    for count, past, expected in ((1, 2, True), (2, 2, False), (1, 0, False)):
        output, weights = first_query(opset, count, past)
        keys, values = (np.concatenate([cached, new], 2)[0, 0].astype(np.float64)
                        for cached, new in zip(earlier[past], (k, v)))
        scores = keys[:past + 1] @ queries[0, 0, 0].astype(np.float64) / np.sqrt(WIDTH)
        exact = np.exp(scores) / np.exp(scores).sum() @ values[:past + 1]
        away, later = np.abs(output - exact).max(), weights[past + 1:].sum()
        print(f"opset {opset}, {count} quer{'y' if count == 1 else 'ies'}"
              f"{'' if past else ', no cache'}: weight of later keys {later:.2f}, "
              f"away from float64 {away:.2f}")
        faults += (later > 0.1 and away > 0.1) != expected
        faults += not expected and away > 1e-5
sys.exit(1 if faults else 0)
END_OF_PYTHON
PYTHONPATH="$scratch/packages" python3 "$scratch/look.py"
