"""Measures one peer on one shape, in a process of its own: `peer_worker.py SHAPE PATTERN SETTING`,
started by peers.py.

Prints a line of JSON when everything is compiled and warm, waits for a line on standard input (so
that compilations overlap and measurements do not), measures, prints a last line of JSON. What fails
is named in that line. SETTING: flex:KERNEL[:autotune], sdpa:BACKEND, fa4:KERNEL or bsa:blocks."""

import json
import math
import sys
import time

import masks
import shapes

ROTATED_BYTES = 120e6  # of forward tensors: twice the largest L2 of today's GPUs
MAX_SETS = 32
MEASUREMENT_MS = 0.25  # long against an event's resolution
WARM_UP_MS = 30
REPEAT = 20
CLOCK_HZ = 2e9  # of torch.cuda._sleep's cycles, at most


def reason(error):
    """One short sentence for a table's cell."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return "out of memory"
    if "out of resource" in text.lower():
        return "no valid choice (shared memory)"
    if "novalidchoices" in text.lower() or "no valid" in text.lower():
        return "no valid choice"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:90]


class Sets:
    """Tensors [B, H, L, D] of as many independent problems as keep the L2 cache cold."""

    def __init__(self, torch, shape, device):
        bytes_of_one = 4 * shape.tensor_bytes
        count = min(max(math.ceil(ROTATED_BYTES / bytes_of_one), 1), MAX_SETS)
        size = (shape.batch, shape.heads, shape.length, shape.head_dim)

        def tensor(needs_gradient):
            return torch.randn(
                size, device=device, dtype=torch.bfloat16, requires_grad=needs_gradient
            )

        self.inputs = [[tensor(True) for _ in range(3)] for _ in range(count)]
        self.gradients = [tensor(False) for _ in range(count)]

    def __len__(self):
        return len(self.inputs)


def index_tensors(torch, matrix):
    """What a BlockMask wants of a bool [nb, nb]: blocks a row [1, 1, nb], their columns first in
    [1, 1, nb, nb]."""
    counts = matrix.sum(1).to(torch.int32)[None, None].contiguous()
    order = torch.argsort(matrix.to(torch.int8), dim=1, descending=True, stable=True)
    return counts, order.to(torch.int32)[None, None].contiguous()


def element_rules(torch, shape, device):
    """FlexAttention's mask functions of a shape's masks."""
    rules, window = [], shape.window
    if shape.causal:
        rules.append(lambda b, h, query, key: query >= key)
    if window is not None:
        rules.append(lambda b, h, query, key: query - key <= window)
    if shape.documents:
        ids = torch.tensor(masks.document_ids(shape), dtype=torch.int32, device=device)
        rules.append(lambda b, h, query, key: ids[query] == ids[key])
    return rules


def flex_block_mask(torch, shape, bits, size, device):
    """Of tiles of this size, the pattern's block or wider: whole ones apart from those that the mask
    or the pattern's edges cross."""
    from torch.nn.attention.flex_attention import BlockMask, and_masks

    block, ratio, side = shape.block, size // shape.block, shape.length // size
    cells = bits.view(side, ratio, side, ratio)
    kept = torch.tensor(masks.coverage(shape, size), device=device)
    touched = cells.any(3).any(1) & (kept != masks.EMPTY)
    whole = cells.all(3).all(1) & (kept == masks.FULL)
    rules = element_rules(torch, shape, device)
    if ratio > 1:
        rules.append(lambda b, h, query, key: bits[query // block, key // block])
    full = index_tensors(torch, whole) if bool(whole.any()) else (None, None)
    return BlockMask.from_kv_blocks(
        *index_tensors(torch, touched & ~whole),
        *full,
        BLOCK_SIZE=size,
        mask_mod=and_masks(*rules) if rules else None,
    )


def flex_call(torch, shape, pattern, kernel, autotune, device):
    """A function (q, k, v) -> o. KERNEL: `plain` (no pattern and no mask), `default` (blocks of the
    pattern, tiles by FlexAttention), `tiles` (tiles equal to the block), `masked` (blocks 128 wide,
    masked inside)."""
    import torch._functorch.config as functorch_config
    from torch.nn.attention.flex_attention import flex_attention

    functorch_config.donated_buffer = False  # the backward pass runs more than once
    mode = "max-autotune-no-cudagraphs" if autotune else None
    compiled = torch.compile(flex_attention, dynamic=False, mode=mode)
    if kernel == "plain":
        return compiled
    bits = torch.tensor(pattern, dtype=torch.bool, device=device)
    size = 128 if kernel == "masked" else shape.block
    mask = flex_block_mask(torch, shape, bits, size, device)
    options = {}
    if kernel == "tiles":
        names = ("BLOCK_M", "BLOCK_N", "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2")
        options = {name: shape.block for name in names}

    def call(q, k, v):
        return compiled(q, k, v, block_mask=mask, kernel_options=options)

    return call


def sdpa_call(torch, shape, backend):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}[backend]

    def call(q, k, v):
        with sdpa_kernel(chosen):
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=shape.causal
            )

    return call


def flash4_passes(torch, shape, pattern, kernel, sets, device):
    """FlashAttention-4, whose tensors are [B, L, H, D]. KERNEL: `dense`, `deterministic` (the same
    with dQ summed in one order), or `blocks` of the pattern, listed by rows of queries forward and
    by columns of keys backward."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    def lists(bits):
        counts, columns = index_tensors(torch, bits)
        return BlockSparseTensorsTorch(
            mask_block_cnt=torch.zeros_like(counts),  # no block needs a mask inside
            mask_block_idx=torch.zeros_like(columns),
            full_block_cnt=counts,
            full_block_idx=columns,
            block_size=(shape.block, shape.block),
        )

    mask = {"causal": shape.causal, "window_size_left": shape.window}
    rows, columns = {}, {"deterministic": True} if kernel == "deterministic" else {}
    if kernel == "blocks":
        bits = torch.tensor(pattern, dtype=torch.bool, device=device)
        rows = {"block_sparse_tensors": lists(bits)}
        columns = {"block_sparse_tensors": lists(bits.t().contiguous())}

    def heads_inside(tensor):
        return tensor.detach().transpose(1, 2).contiguous()

    inputs = [[heads_inside(tensor) for tensor in one] for one in sets.inputs]
    gradients = [heads_inside(tensor) for tensor in sets.gradients]

    def forward(n):
        return _flash_attn_fwd(*inputs[n % len(sets)], return_lse=True, **mask, **rows)

    def backward(index, outputs):
        out, lse = outputs[:2]
        _flash_attn_bwd(*inputs[index], out, gradients[index], lse, **mask, **columns)

    return explicit_passes(forward, backward, len(sets))


def block_sparse_cudnn_passes(torch, shape, pattern, sets, device):
    """cuDNN's block-sparse attention: blocks of 64 or 128, each query block's list of key blocks
    for every (batch, head)."""
    from cudnn import block_sparse_attention

    bits = torch.tensor(pattern, dtype=torch.bool, device=device)
    counts, columns = index_tensors(torch, bits)
    common = {
        "q2k_block_index": columns.expand(shape.batch, shape.heads, -1, -1).contiguous(),
        "q2k_block_nums": counts.expand(shape.batch, shape.heads, -1).contiguous(),
        "sparse_block_size": shape.block,
    }
    inputs = [[tensor.detach() for tensor in one] for one in sets.inputs]

    def forward(n):
        return block_sparse_attention.block_sparse_attention_forward(
            *inputs[n % len(sets)], **common
        )

    def backward(index, outputs):
        block_sparse_attention.block_sparse_attention_backward(
            sets.gradients[index],
            *inputs[index],
            outputs["o_tensor"],
            outputs["lse_tensor"],
            **common,
        )

    return explicit_passes(forward, backward, len(sets))


def explicit_passes(forward, backward, count):
    """passes_of() for a peer without autograd: forward(n) returns what backward(index, that) takes."""
    outputs = {}

    def backward_pass(n):
        index = n % count
        if index not in outputs:
            outputs[index] = forward(index)
        backward(index, outputs[index])

    return {"forward": forward, "backward": backward_pass}


def passes_of(torch, call, sets):
    """{"forward": f(n), "backward": f(n)}: enqueue the n-th call of a pass on the n-th set."""
    outputs = {}

    def forward(n):
        with torch.no_grad():
            call(*sets.inputs[n % len(sets)])

    def backward(n):
        index = n % len(sets)
        if index not in outputs:
            outputs[index] = call(*sets.inputs[index])
        torch.autograd.grad(
            outputs[index], sets.inputs[index], sets.gradients[index], retain_graph=True
        )

    return {"forward": forward, "backward": backward}


def elapsed(torch, run, calls, first, host_seconds):
    """Milliseconds a call between two events around `calls` of them. The device is kept busy until
    all are enqueued, so that the host's time to launch them does not count."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(int(min(host_seconds * calls * 2 + 50e-6, 0.05) * CLOCK_HZ))
    start.record()
    for n in range(calls):
        run(first + n)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / calls


def median_milliseconds(torch, run, sets):
    for n in range(sets):
        run(n)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for n in range(3):
        run(n)
    host_seconds = (time.perf_counter() - began) / 3
    total, one, index = 0.0, 0.0, 0
    while total < WARM_UP_MS:
        one = elapsed(torch, run, 4, index, host_seconds)
        total += 4 * one
        index += 4
    calls = min(max(math.ceil(MEASUREMENT_MS / one), 1), 100)
    times = []
    for _ in range(REPEAT):
        times.append(elapsed(torch, run, calls, index, host_seconds))
        index += calls
    return sorted(times)[REPEAT // 2]


def prepare(torch, shape, pattern, setting, sets, device):
    """The passes that compiled and ran once, and why the others did not."""
    kind, kernel, *rest = setting.split(":")
    passes, failures, compile_seconds = {}, {}, {}
    try:
        if kind == "fa4":
            wanted = flash4_passes(torch, shape, pattern, kernel, sets, device)
        elif kind == "bsa":
            wanted = block_sparse_cudnn_passes(torch, shape, pattern, sets, device)
        elif kind == "flex":
            call = flex_call(torch, shape, pattern, kernel, rest == ["autotune"], device)
            wanted = passes_of(torch, call, sets)
        else:
            wanted = passes_of(torch, sdpa_call(torch, shape, kernel), sets)
    except Exception as error:  # whatever a peer throws is its result
        return {}, {name: reason(error) for name in shapes.PASSES}, {}
    for name, run in wanted.items():
        began = time.perf_counter()
        try:
            run(0)
            if device == "cuda":
                torch.cuda.synchronize()
            passes[name] = run
        except Exception as error:
            failures[name] = reason(error)
            print(f"{shape.name} {setting} {name}: {error}", file=sys.stderr)
        compile_seconds[name] = round(time.perf_counter() - began, 2)
    return passes, failures, compile_seconds


def main():
    name, pattern_file, setting = sys.argv[1:]
    (shape,) = shapes.choose([name])
    result = {"shape": name, "setting": setting}
    with open(pattern_file, encoding="ascii") as file:
        pattern = shapes.parse_pattern(file.read())
    import torch

    torch.manual_seed(0)
    result["torch"] = torch.__version__
    result["device"] = torch.cuda.get_device_name()
    sets = Sets(torch, shape, "cuda")
    passes, failures, seconds = prepare(torch, shape, pattern, setting, sets, "cuda")
    print(json.dumps({"ready": setting}), flush=True)
    if not sys.stdin.readline():
        return
    result.update(
        blocks=shapes.count_blocks(pattern), buffer_sets=len(sets), compile_seconds=seconds
    )
    for pass_name in shapes.PASSES:
        if pass_name in failures:
            result[pass_name] = {"failure": failures[pass_name]}
            continue
        try:
            ms = median_milliseconds(torch, passes[pass_name], len(sets))
            result[pass_name] = {"ms": ms}
        except Exception as error:
            result[pass_name] = {"failure": reason(error)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
