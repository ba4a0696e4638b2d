#!/usr/bin/env bash
# The reference evaluator of ONNX, which the standard's own test data come from, computes the
# operator Attention otherwise than the standard and than the standard's function body, which is in
# the same package:
# (1) with is_causal=1 and a padding mask that is broadcast over the queries, of shape [1, 1, 1, S],
# no query but the first is causal as it should be: all of them get what the first may see. The
# standard says that the shape of attn_mask "must be broadcastable to 4D tensor with shape
# (batch_size, q_num_heads, q_sequence_length, total_sequence_length)", and that query i attends key
# j iff j <= i + offset. The same mask written out for every query gives the right rows.
# (2) with a softcap, qk_matmul_output_mode 0, "the output of qk matmul", gives what mode 1 gives,
# "the output after the softcap operation".
# Nothing warns of either. The function body does both as the standard has it.
#
# Seen with onnx 1.23.2, numpy 2.4.6, opsets 23, 24 and 25 alike (largest difference to float64):
#     opset 23: mask [1, 1, 1, 4] reference 3.5e+00, function body 3e-07; written out 3e-07
#     opset 23: mode 0 with softcap: reference 6.0e+00, function body 6e-07
# Needs Python 3.11 or later with pip, and PyPI. Exit code 1: a release does otherwise now.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$scratch/packages" onnx==1.23.2 numpy==2.4.6
cat >"$scratch/look.py" <<'END_OF_PYTHON'
import sys

import numpy as np
from onnx import TensorProto, helper, inliner
from onnx.reference import ReferenceEvaluator

KEYS = 4
random = np.random.default_rng(1)
q, k, v = (2 * random.standard_normal((1, 1, KEYS, 8)).astype(np.float32) for _ in range(3))


def evaluate(opset, feeds, outputs, function_body, **attributes):
    kinds = {np.dtype(bool): TensorProto.BOOL, np.dtype(np.float32): TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kinds[array.dtype], array.shape)
              for name, array in feeds.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
               for name in outputs if name]
    node = helper.make_node("Attention", list(feeds), outputs, **attributes)
    model = helper.make_model(helper.make_graph([node], "attention", inputs, results),
                              opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if function_body:
        model = inliner.inline_selected_functions(model, [("", "Attention")],
                                                  inline_schema_functions=True)
        assert all(part.op_type != "Attention" for part in model.graph.node)
    return ReferenceEvaluator(model).run(None, feeds)[-1]


def away(result, exact):
    return float(np.abs(result - exact).max())


scores = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3)) / np.sqrt(8)
row = np.array([True, True, True, False]).reshape(1, 1, 1, KEYS)
kept = row & np.tri(KEYS, dtype=bool)
weights = np.where(kept, np.exp(scores - scores.max()), 0)
exact = (weights / weights.sum(-1, keepdims=True)) @ v

faults = 0
for opset in (23, 24, 25):
    feeds = {"Q": q, "K": k, "V": v, "mask": row}
    reference = away(evaluate(opset, feeds, ["Y"], False, is_causal=1), exact)
    body = away(evaluate(opset, feeds, ["Y"], True, is_causal=1), exact)
    feeds["mask"] = np.broadcast_to(row, (1, 1, KEYS, KEYS)).copy()
    whole = away(evaluate(opset, feeds, ["Y"], False, is_causal=1), exact)
    print(f"opset {opset}: mask [1, 1, 1, {KEYS}] reference {reference:.1e}, function body {body:.0e}; "
          f"written out {whole:.0e}")
    faults += not (reference > 1 and body < 1e-5 and whole < 1e-5)

    feeds, outputs = {"Q": q, "K": k, "V": v}, ["Y", "", "", "product"]
    options = {"softcap": 2.0, "qk_matmul_output_mode": 0}
    reference = away(evaluate(opset, feeds, outputs, False, **options), scores)
    body = away(evaluate(opset, feeds, outputs, True, **options), scores)
    print(f"opset {opset}: mode 0 with softcap: reference {reference:.1e}, function body {body:.0e}")
    faults += not (reference > 1 and body < 1e-5)
sys.exit(1 if faults else 0)
END_OF_PYTHON
PYTHONPATH="$scratch/packages" python3 "$scratch/look.py"
