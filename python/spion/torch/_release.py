"""Refuses a PyTorch that is too old, before anything of it is used that it may not have."""

OLDEST = (2, 10)


def _check() -> None:
    wanted = ".".join(str(x) for x in OLDEST)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ImportError(
            f"spion.torch takes PyTorch {wanted} or later, and there is none: pip install "
            f"'torch>={wanted}'"
        ) from error
    words = torch.__version__.split(".")
    if tuple(int(x) for x in words[:2]) < OLDEST:
        raise ImportError(
            f"spion.torch takes PyTorch {wanted} or later, and this is {torch.__version__}: pip "
            f"install 'torch>={wanted}'"
        )


_check()
