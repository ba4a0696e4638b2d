from collections.abc import Sequence

class InternalError(RuntimeError):
    pass

class DeviceError(RuntimeError):
    pass

class Frozen(RuntimeError):
    pass

class UserError(ValueError):
    pass

SOFTMAXES: dict[str, int]

def version() -> str: ...
def abi_version() -> int: ...

class Pattern:
    @staticmethod
    def from_bits(arg0: int, arg1: int, arg2: object, /) -> Pattern: ...
    @staticmethod
    def from_text(arg0: int, arg1: int, arg2: str, /) -> Pattern: ...
    @staticmethod
    def full(arg0: int, arg1: int, /) -> Pattern: ...
    @staticmethod
    def from_cross_bits(arg0: int, arg1: int, arg2: int, arg3: object, /) -> Pattern: ...
    @staticmethod
    def from_heads(arg: Sequence[Pattern], /) -> Pattern: ...
    def head(self, arg: int, /) -> Pattern: ...
    @property
    def key_length(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def patterns(self) -> int: ...
    @property
    def imbalance(self) -> float: ...
    @staticmethod
    def from_csr(arg0: int, arg1: int, arg2: object, arg3: object, /) -> Pattern: ...
    @staticmethod
    def from_block_mask(
        arg0: int,
        arg1: int,
        arg2: object,
        arg3: object,
        arg4: object | None,
        arg5: object | None,
        /,
    ) -> Pattern: ...
    @staticmethod
    def from_layout(arg0: int, arg1: int, arg2: object, /) -> Pattern: ...
    def transpose(self) -> Pattern: ...
    @property
    def length(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def block_count(self) -> int: ...
    @property
    def density(self) -> float: ...
    @property
    def digest(self) -> str: ...
    def write_bits(self, arg: object, /) -> None: ...
    def text(self) -> str: ...
    def picture(self, arg: int, /) -> str: ...

class Discovery:
    def __init__(self, arg0: int, arg1: int, arg2: int, arg3: float, arg4: float, /) -> None: ...

def discover_scores(arg0: Discovery, arg1: object, /) -> Pattern: ...
def discover_pooled(arg0: Discovery, arg1: int, arg2: object, /) -> Pattern: ...

class Attention:
    def __init__(
        self,
        arg0: int,
        arg1: int,
        arg2: int,
        arg3: int,
        arg4: int,
        arg5: float,
        arg6: int,
        arg7: bool,
        arg8: int,
        arg9: bool,
        arg10: bool,
        arg11: float,
        arg12: int,
        arg13: float,
        arg14: bool,
        arg15: bool,
        arg16: int,
        arg17: int,
        arg18: bool,
        arg19: int,
        arg20: str,
        arg21: str,
        arg22: bool,
        arg23: int,
        /,
    ) -> None: ...

class Context:
    @staticmethod
    def open(
        arg0: bool,
        arg1: int,
        arg2: int,
        arg3: bool,
        arg4: bool,
        arg5: str | None,
        arg6: str | None,
        /,
    ) -> Context: ...
    @property
    def device(self) -> str: ...
    @property
    def target(self) -> str: ...
    def freeze(self, arg: bool, /) -> None: ...
    def counters(self) -> tuple: ...
    def plan(self, arg0: Attention, arg1: Pattern | None, arg2: int, arg3: int, /) -> Plan: ...
    def discoverer(self, arg0: Attention, arg1: Discovery, /) -> Discoverer: ...
    def warm_up(self, arg: Sequence[Attention], /) -> None: ...

def current_stream(arg0: object, arg1: int, /) -> int: ...

class Discoverer:
    @property
    def sum_bytes(self) -> int: ...
    def run(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object | None,
        arg4: object,
        arg5: int | None,
        arg6: object | None = None,
        /,
    ) -> None: ...
    def finish(self, arg0: object, arg1: object, /) -> Pattern: ...

class Plan:
    @property
    def table_bytes(self) -> int: ...
    @property
    def max_blocks(self) -> int: ...
    @property
    def origin(self) -> int: ...
    @property
    def milliseconds(self) -> float: ...
    def explain(self) -> str: ...
    def write_tables(self, arg0: Pattern, arg1: object, /) -> None: ...
    def workspace(self, arg0: int, arg1: int, /) -> tuple: ...
    def forward(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object | None,
        arg5: object,
        arg6: object | None,
        arg7: object | None,
        arg8: object | None,
        arg9: object | None,
        arg10: bool,
        arg11: int | None,
        arg12: object | None = None,
        arg13: object | None = None,
        arg14: object | None = None,
        arg15: object | None = None,
        arg16: object | None = None,
        arg17: object | None = None,
        arg18: object | None = None,
        arg19: object | None = None,
        /,
    ) -> None: ...
    def backward(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object,
        arg5: object,
        arg6: object,
        arg7: object,
        arg8: object,
        arg9: object,
        arg10: object | None,
        arg11: object | None,
        arg12: object | None,
        arg13: object | None,
        arg14: bool,
        arg15: int | None,
        arg16: object | None = None,
        arg17: object | None = None,
        arg18: object | None = None,
        arg19: object | None = None,
        arg20: object | None = None,
        arg21: object | None = None,
        arg22: object | None = None,
        arg23: object | None = None,
        arg24: object | None = None,
        arg25: object | None = None,
        /,
    ) -> None: ...

class Operator:
    def __init__(self, arg: object, /) -> None: ...
    def add(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object,
        arg5: object | None,
        arg6: object | None,
        arg7: int,
        arg8: float,
        arg9: str,
        arg10: bool,
        /,
    ) -> None: ...
    def add_general(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object,
        arg5: object | None,
        arg6: object | None,
        arg7: int,
        arg8: float,
        arg9: str,
        arg10: bool,
        arg11: float,
        arg12: float,
        arg13: int,
        arg14: object | None,
        arg15: object | None,
        arg16: object | None,
        arg17: str,
        arg18: str,
        /,
    ) -> None: ...
    def forward(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object | None,
        arg5: int,
        arg6: float,
        arg7: str,
        arg8: bool,
        arg9: object | None,
        /,
    ) -> object: ...
    def forward_general(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object | None,
        arg5: int,
        arg6: float,
        arg7: str,
        arg8: bool,
        arg9: object | None,
        arg10: float,
        arg11: float,
        arg12: int,
        arg13: object | None,
        arg14: object | None,
        arg15: object | None,
        arg16: object | None,
        arg17: str,
        arg18: str,
        /,
    ) -> object: ...
    def backward(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object,
        arg5: object,
        arg6: object,
        arg7: object | None,
        arg8: int,
        arg9: float,
        arg10: str,
        arg11: bool,
        arg12: object | None,
        /,
    ) -> object: ...
    def backward_general(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: object,
        arg5: object,
        arg6: object,
        arg7: object | None,
        arg8: int,
        arg9: float,
        arg10: str,
        arg11: bool,
        arg12: object | None,
        arg13: float,
        arg14: float,
        arg15: int,
        arg16: object | None,
        arg17: object | None,
        arg18: object | None,
        arg19: object | None,
        arg20: str,
        arg21: str,
        arg22: object | None,
        arg23: object | None,
        /,
    ) -> object: ...
    def forward_packed(
        self,
        arg0: object,
        arg1: int,
        arg2: object,
        arg3: object | None,
        arg4: int,
        arg5: float,
        arg6: str,
        arg7: bool,
        arg8: object | None,
        arg9: str,
        arg10: str,
        /,
    ) -> object: ...
    def backward_packed(
        self,
        arg0: object,
        arg1: object,
        arg2: object,
        arg3: object,
        arg4: int,
        arg5: object,
        arg6: object | None,
        arg7: int,
        arg8: float,
        arg9: str,
        arg10: bool,
        arg11: object | None,
        arg12: str,
        arg13: str,
        /,
    ) -> object: ...

def write_spans(
    arg0: bool,
    arg1: int | None,
    arg2: int | None,
    arg3: object | None,
    arg4: object | None,
    arg5: object | None,
    arg6: object | None,
    arg7: object,
    arg8: object,
    arg9: object | None = None,
    arg10: object | None = None,
    /,
) -> None: ...
def emit(arg0: Attention, arg1: str, arg2: int, arg3: int, arg4: Pattern | None, /) -> bytes: ...
def explain(arg0: Attention, arg1: str, arg2: Pattern | None, /) -> str: ...
def write_bundle(arg0: Sequence[Attention], arg1: Sequence[str], arg2: str, /) -> None: ...
def check_bundle(arg: str, /) -> str: ...
