"""How operators with gradients are registered: one kernel on the key Autograd, which sends plain tensors
to the library at once and everything else, fake and traced tensors, subclasses, lazy bits and functorch's
transforms, on to the keys below, as torch.library does it."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Callable, NamedTuple

import torch
from torch.autograd import forward_ad as _forward_ad

from .._core import UserError

Kernel = Callable[..., Any]


class Kernels(NamedTuple):
    """What computes an operator and its gradients, and what makes their results for fake tensors. direct:
    the part of forward that takes most calls, given all arguments; None says that it does not."""

    forward: Kernel
    backward: Kernel
    fake: Kernel
    fake_backward: Kernel
    direct: Kernel | None = None


class Derivative(NamedTuple):
    """The places of the arguments that have a gradient, beginning at 0; save(ctx, arguments, outputs);
    and differentiate(ctx, d_o, backward) -> their gradients, where `backward` is the operator of the
    gradients, or what computes it."""

    of: tuple[int, ...]
    save: Kernel
    differentiate: Kernel


def _bits(*names: str) -> int:
    bits = 0
    for name in names:
        key = getattr(torch._C.DispatchKey, name)
        bits |= torch._C.DispatchKeySet(key).raw_repr()
    return bits


# Keys other than those of dense tensors of the host and of CUDA.
_SPECIAL = ~_bits(
    "CPU",
    "CUDA",
    "AutogradCPU",
    "AutogradCUDA",
    "ADInplaceOrView",
    "AutocastCPU",
    "AutocastCUDA",
    "BackendSelect",
)
_dispatch_modes = torch._C._len_torch_dispatch_stack


def _below_autograd(operator: Any, keys: Any, arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments)


def records(tensors: tuple[torch.Tensor | None, ...]) -> bool:
    for x in tensors:
        if x is not None and x.requires_grad:
            return torch.is_grad_enabled()
    return False


def _refuse_tangents(operands: tuple[torch.Tensor | None, ...]) -> None:
    for x in operands:
        if x is not None and _forward_ad.unpack_dual(x).tangent is not None:
            raise UserError(
                "attention has no derivative in forward mode (jvp): use backward(), or detach what is "
                "given to it"
            )


def _plain_function(
    kernels: Kernels, derivative: Derivative, backward_operator: Any
) -> type[torch.autograd.Function]:
    save, differentiate = derivative.save, derivative.differentiate
    direct = kernels.direct or kernels.forward
    nothing = (None,) * len(derivative.of)

    class Plain(torch.autograd.Function):
        """Of plain tensors: those that may have a gradient, then all arguments as one tuple, since
        PyTorch looks at each argument's kind."""

        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            made = direct(*given[-1])
            if made is None:
                made = kernels.forward(*given[-1])
            ctx.mark_non_differentiable(made[1])
            ctx.set_materialize_grads(False)
            save(ctx, given[-1], made)
            return made

        @staticmethod
        def backward(ctx: Any, d_o: torch.Tensor | None, _: None) -> Any:
            if d_o is None:
                return *nothing, None
            special = torch._C._dispatch_keys(d_o).raw_repr() & _SPECIAL
            if special or _dispatch_modes() or torch.is_grad_enabled():
                return *differentiate(ctx, d_o, backward_operator), None
            return *differentiate(ctx, d_o, kernels.backward), None

    return Plain


def _traced_function(
    operator: Any, derivative: Derivative, backward_operator: Any
) -> type[torch.autograd.Function]:
    class Traced(torch.autograd.Function):
        """Of all others: to the keys below Autograd."""

        @staticmethod
        def forward(keys: Any, *arguments: Any) -> Any:
            return _below_autograd(operator, keys, arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.arguments = len(inputs)
            ctx.mark_non_differentiable(output[1])
            ctx.set_materialize_grads(False)
            derivative.save(ctx, inputs[1:], output)

        @staticmethod
        def backward(ctx: Any, d_o: torch.Tensor | None, _: None) -> Any:
            gradients = [None] * ctx.arguments
            if d_o is not None:
                made = derivative.differentiate(ctx, d_o, backward_operator)
                for place, gradient in zip(derivative.of, made):
                    gradients[1 + place] = gradient
            return tuple(gradients)

    return Traced


def _once_function(backward_operator: Any) -> type[torch.autograd.Function]:
    class Once(torch.autograd.Function):
        """The gradients, which have none of their own."""

        @staticmethod
        def forward(keys: Any, *arguments: Any) -> Any:
            return _below_autograd(backward_operator, keys, arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise UserError(
                "attention cannot be differentiated twice: its backward pass has no gradient of its "
                "own"
            )

    return Once


def _taker(places: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """What is at these places of a tuple, as a tuple."""
    if places == tuple(range(len(places))):
        return itemgetter(slice(len(places)))
    return itemgetter(*places)


def _autograd_kernels(
    operator: Any, backward_operator: Any, kernels: Kernels, derivative: Derivative, plain: Any
) -> tuple[Kernel, Kernel]:
    traced = _traced_function(operator, derivative, backward_operator)
    once = _once_function(backward_operator)
    defaults = tuple(x.default_value for x in operator._schema.arguments)
    count, inputs_of = len(defaults), _taker(derivative.of)
    direct = kernels.direct or kernels.forward

    def forward(keys: Any, *arguments: Any) -> Any:
        if len(arguments) < count:  # the dispatcher leaves out what has its default
            arguments += defaults[len(arguments) :]
        inputs = inputs_of(arguments)
        if _forward_ad._current_level >= 0:
            _refuse_tangents(inputs)
        recorded = False
        for x in inputs:
            if x is not None and x.requires_grad:
                recorded = torch.is_grad_enabled()
                break
        if keys.raw_repr() & _SPECIAL:
            if recorded:
                return traced.apply(keys, *arguments)
            return _below_autograd(operator, keys, arguments)
        if recorded:
            return plain.apply(*inputs, arguments)
        made = direct(*arguments)
        return kernels.forward(*arguments) if made is None else made

    def backward(keys: Any, *arguments: Any) -> Any:
        tensors = tuple([x for x in arguments if isinstance(x, torch.Tensor)])
        if records(tensors):
            return once.apply(keys, *arguments)
        if keys.raw_repr() & _SPECIAL:
            return _below_autograd(backward_operator, keys, arguments)
        return kernels.backward(*arguments)

    return forward, backward


def register(
    library: torch.library.Library, name: str, kernels: Kernels, derivative: Derivative
) -> type[torch.autograd.Function]:
    """The kernels of spion::NAME, whose results are o and lse, and of spion::NAME_backward, both defined
    in `library`. lse counts as a constant. Returns the function that records plain tensors."""
    operator = getattr(torch.ops.spion, name).default
    backward_operator = getattr(torch.ops.spion, f"{name}_backward").default
    for key in ("CPU", "CUDA"):
        library.impl(name, kernels.forward, key)
        library.impl(f"{name}_backward", kernels.backward, key)
    plain = _plain_function(kernels, derivative, backward_operator)
    made = _autograd_kernels(operator, backward_operator, kernels, derivative, plain)
    for called, kernel in zip((name, f"{name}_backward"), made):
        library.impl(called, kernel, "Autograd", with_keyset=True)
    torch.library.register_fake(f"spion::{name}", kernels.fake, lib=library)
    torch.library.register_fake(f"spion::{name}_backward", kernels.fake_backward, lib=library)
    return plain


def autocast(
    library: torch.library.Library, name: str, operands: int, types: Callable[[torch.Tensor], Any]
) -> None:
    """Under autocast spion::NAME converts its first `operands` tensors to types(the first)."""
    operator = getattr(torch.ops.spion, name).default
    for device in ("CPU", "CUDA"):
        without = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device}"))

        def call(*arguments: Any, without: Any = without) -> Any:
            dtype = types(arguments[0])
            converted = [x.to(dtype) for x in arguments[:operands]]
            with torch._C._ExcludeDispatchKeyGuard(without):
                return operator(*converted, *arguments[operands:])

        library.impl(name, call, f"Autocast{device}")
