"""Block-sparse attention whose kernels are compiled while the program runs.

    pattern = spion.Pattern.from_dense(mask, block=64)       which blocks are computed
    plan = spion.plan(heads=8, head_dim=64, length=4096)     the compiled kernels of a shape
    o, lse = plan.forward(q, k, v, pattern)                  arrays in, arrays of the same kind out

Arrays are [B, H, L, D]: NumPy's on the host (float32), and on a GPU those of any library that has
DLPack. `spion.torch` is the operator for PyTorch, with gradients, `torch.compile` and modules.

What was asked wrongly raises UserError, a ValueError; what the machine lacks DeviceError, what is
our fault InternalError and what a frozen context would have to compile Frozen, all RuntimeErrors.
"""

from ._context import Context, compiles, context, doctor, frozen, load_bundle
from ._core import DeviceError, Frozen, InternalError, UserError, version as _version
from ._discoverer import Discoverer
from ._mask import spans
from ._offline import check_bundle, emit, explain, precompile
from ._pattern import Pattern, discover
from ._plan import Attention, Plan, dropout_state, plan

__version__: str = _version()

__all__ = [
    "Attention",
    "Context",
    "DeviceError",
    "Discoverer",
    "Frozen",
    "InternalError",
    "Pattern",
    "Plan",
    "UserError",
    "check_bundle",
    "compiles",
    "context",
    "discover",
    "doctor",
    "dropout_state",
    "emit",
    "explain",
    "frozen",
    "load_bundle",
    "plan",
    "precompile",
    "spans",
]
