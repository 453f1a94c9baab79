"""Values inside a traced mask_mod or score_mod: operators and PyTorch's functions on them give expressions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.errors_flex import CannotBranch, CannotTraceIndex, CannotTraceTorch

if TYPE_CHECKING:
    from attnlang.flex_import_trace import FlexTrace

FILES_OF_THE_TRACER.add(__file__)

Kind = Literal["bool", "int", "float"]
Number = bool | int | float


class Observed(Exception):
    """The function has asked for the value of captured numbers: they are constants of the pattern, not parameters."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


class Value:
    """An expression and the kind of number it is. `number`: its value where only numbers enter; `names`: the captured
    ones among them."""

    __slots__ = ("_trace", "expr", "kind", "names", "number")

    def __init__(
        self,
        trace: FlexTrace,
        expr: syntax.Expr,
        kind: Kind,
        number: Number | None = None,
        names: frozenset[str] = frozenset(),
    ) -> None:
        self._trace = trace
        self.expr = expr
        self.kind: Kind = kind
        self.number = number
        self.names = names

    def __repr__(self) -> str:
        return f"<traced {self.kind}>"

    def __str__(self) -> str:
        return str(self.now())

    def __format__(self, form: str) -> str:
        return format(self.now(), form)

    def __getattribute__(self, name: str) -> Any:
        """isinstance asks for `__class__`: a captured number is one."""
        if name == "__class__" and self.names:
            return type(self.number)
        return object.__getattribute__(self, name)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        raise CannotTraceTorch(here(), what=f"torch's '{name}' here")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._trace.attribute(self, name)

    # ---- operators

    def _do(self, name: str, *operands: object) -> Value:
        return self._trace.apply(name, operands, {})

    def __add__(self, other: object) -> Value:
        return self._do("add", self, other)

    def __radd__(self, other: object) -> Value:
        return self._do("add", other, self)

    def __sub__(self, other: object) -> Value:
        return self._do("sub", self, other)

    def __rsub__(self, other: object) -> Value:
        return self._do("sub", other, self)

    def __mul__(self, other: object) -> Value:
        return self._do("mul", self, other)

    def __rmul__(self, other: object) -> Value:
        return self._do("mul", other, self)

    def __truediv__(self, other: object) -> Value:
        return self._do("div", self, other)

    def __rtruediv__(self, other: object) -> Value:
        return self._do("div", other, self)

    def __floordiv__(self, other: object) -> Value:
        return self._do("floor_divide", self, other)

    def __rfloordiv__(self, other: object) -> Value:
        return self._do("floor_divide", other, self)

    def __mod__(self, other: object) -> Value:
        return self._do("remainder", self, other)

    def __rmod__(self, other: object) -> Value:
        return self._do("remainder", other, self)

    def __pow__(self, other: object) -> Value:
        return self._do("pow", self, other)

    def __rpow__(self, other: object) -> Value:
        return self._do("pow", other, self)

    def __neg__(self) -> Value:
        return self._do("neg", self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return self._do("abs", self)

    def __lt__(self, other: object) -> Value:
        return self._do("lt", self, other)

    def __le__(self, other: object) -> Value:
        return self._do("le", self, other)

    def __gt__(self, other: object) -> Value:
        return self._do("gt", self, other)

    def __ge__(self, other: object) -> Value:
        return self._do("ge", self, other)

    def __eq__(self, other: object) -> Any:
        return self._do("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return self._do("ne", self, other)

    def __and__(self, other: object) -> Value:
        return self._do("and", self, other)

    def __rand__(self, other: object) -> Value:
        return self._do("and", other, self)

    def __or__(self, other: object) -> Value:
        return self._do("or", self, other)

    def __ror__(self, other: object) -> Value:
        return self._do("or", other, self)

    def __xor__(self, other: object) -> Value:
        return self._do("xor", self, other)

    def __rxor__(self, other: object) -> Value:
        return self._do("xor", other, self)

    def __lshift__(self, other: object) -> Value:
        return self._do("lshift", self, other)

    def __rlshift__(self, other: object) -> Value:
        return self._do("lshift", other, self)

    def __rshift__(self, other: object) -> Value:
        return self._do("rshift", self, other)

    def __rrshift__(self, other: object) -> Value:
        return self._do("rshift", other, self)

    def __invert__(self) -> Value:
        return self._do("not", self)

    __hash__ = object.__hash__

    # ---- what Python would want to know now

    def now(self) -> Number:
        """The value, where numbers decide it; captured ones are then no parameters."""
        if self.number is None:
            raise CannotBranch(here())
        if self.names:
            raise Observed(self.names)
        return self.number

    def __bool__(self) -> bool:
        return bool(self.now())

    def __int__(self) -> int:
        return int(self.now())

    def __float__(self) -> float:
        return float(self.now())

    def __index__(self) -> int:
        if self.number is None:
            raise CannotBranch(
                here(), "an index is no number yet: put the values into a tensor, torch.tensor(values)[h]"
            )
        return operator.index(int(self.now()))

    def __round__(self, digits: int = 0) -> float:
        return round(self.now(), digits)

    def __iter__(self) -> Any:
        raise CannotBranch(here())

    def __len__(self) -> int:
        raise CannotBranch(here())

    def __contains__(self, item: object) -> bool:
        raise CannotBranch(here())

    def __getitem__(self, index: object) -> Value:
        raise CannotTraceIndex(
            here(), "q_idx, kv_idx and the score are single numbers", how="with an index too many"
        )


class Part:
    """A captured tensor with some of its indices."""

    def __init__(self, trace: FlexTrace, tensor: Any, places: tuple[object, ...]) -> None:
        self._trace = trace
        self._tensor = tensor
        self._places = places

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise CannotTraceIndex(here(), how="with too few indices")

    def __getitem__(self, index: object) -> Value | Part:
        places = cast("tuple[object, ...]", index) if isinstance(index, tuple) else (index,)
        return self._trace.read(self._tensor, (*self._places, *places))

    def __eq__(self, other: object) -> Any:
        raise self.refuse()

    def __ne__(self, other: object) -> Any:
        raise self.refuse()

    def __bool__(self) -> bool:
        raise self.refuse()

    def __iter__(self) -> Any:
        raise self.refuse()

    def _operator(self, other: object = None) -> Any:
        raise self.refuse()

    __hash__ = object.__hash__
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __invert__ = __abs__ = _operator
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _operator
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _operator
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _operator
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _operator

    def refuse(self) -> CannotTraceIndex:
        """What is wrong with a part of a tensor as a number."""
        how = f"with {len(self._places)} of its {self._tensor.dim()} indices"
        return CannotTraceIndex(here(), how=how)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise self.refuse()
