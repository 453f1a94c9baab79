"""Expressions of printed C++ at one point of a loop nest: vectors along one dimension, numbers along the others."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field, fields
from typing import assert_never

from attnlang.ir.kernel import Const, Dot, Expr, Fold, Full, Lanes, Load, Op, Shape, Type, Var

from .ops import ATOM, COMPARISON, CPP, CPP_NUMBERS, CPP_STORED, CPP_VECTORS, PRODUCT, SUM, UNARY

COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
WIDE = ("i64", "fp64")


@dataclass(frozen=True)
class Tile:
    """Values in memory, the lanes innermost. `rows`: not the values themselves, but a pointer to each row of them."""

    array: str
    type: Type
    shape: Shape
    rows: bool = False


@dataclass
class Scene:
    """What names stand for at some place of the printed code. `lengths`: of each dimension, as C++; `places`: where a
    dimension's lanes are not 0, 1, 2, … but listed in an array; `flags`: where conditions lie as bits; `parts`: of a
    dimension, the array of the stretches that parts of the lanes see; `asked`: rows that products have asked for;
    `turned`: where packed rows come from, with the array of their offsets; `last`: whether this is the last turn of a
    loop; `origins`: where the rows of a packed tile lie in its tensor; `coarse`: whether what is computed here is
    rounded to two bytes; `alone`: whether this is one lane by itself."""

    lane: str
    lengths: dict[str, str]
    sizes: dict[str, int]
    spelled: dict[str, str]
    tiles: dict[str, Tile] = field(default_factory=dict[str, Tile])
    numbers: set[str] = field(default_factory=set[str])
    lazy: dict[str, Expr] = field(default_factory=dict[str, Expr])
    places: dict[str, str] = field(default_factory=dict[str, str])
    locals: dict[str, str] = field(default_factory=dict[str, str])
    flags: dict[str, str] = field(default_factory=dict[str, str])
    parts: dict[str, str] = field(default_factory=dict[str, str])
    asked: set[str] = field(default_factory=set[str])
    turned: dict[str, tuple[str, str, Load]] = field(default_factory=dict[str, tuple[str, str, Load]])
    last: str = ""
    origins: dict[str, str] = field(default_factory=dict[str, str])
    coarse: bool = False
    alone: bool = False

    def inside(self) -> Scene:
        """A copy for a block: what is named in it is unknown outside."""
        return Scene(**{each.name: copy(getattr(self, each.name)) for each in fields(self)})

    def name(self, name: str) -> str:
        """A name of the kernel as C++ spells it."""
        return self.spelled.get(name, name)

    # ------------------------------------------------------------------------------------------- memory

    def at(self, tile: Tile) -> str:
        """The index of this point in a tile."""
        text = ""
        for dim in (*(dim for dim in tile.shape if dim != self.lane), self.lane):
            if dim in tile.shape:
                text = f"{_summand(text)} * {self.sizes[dim]} + in_{dim}" if text else f"in_{dim}"
        return text

    def element(self, tile: Tile) -> str:
        """A tile's value at this point: a vector where it has lanes."""
        if self.lane in tile.shape and not self.alone:
            return f"load({tile.array} + {self.at(tile)})"
        return f"{tile.array}[{self.at(tile)}]"

    def is_vector(self, expr: Expr) -> bool:
        """Whether a value differs from lane to lane."""
        return self.lane in expr.shape and not self.alone

    # -------------------------------------------------------------------------------------- expressions

    def text(self, expr: Expr) -> str:
        """An expression as it stands alone."""
        return self._with(expr)[0]

    def vector(self, expr: Expr) -> str:
        """An expression in every lane."""
        return self.text(expr) if self.is_vector(expr) else f"spread({self._typed(expr)})"

    def tight(self, expr: Expr, binds: int = ATOM) -> str:
        """An expression in brackets, where it binds less tightly."""
        text, own = self._with(expr)
        return text if own >= binds else f"({text})"

    def _typed(self, expr: Expr) -> str:
        """A number whose C++ type is that of the expression, also where it is a constant or made of conditions."""
        match expr:
            case Const(_, "i64"):
                return f"(int64_t){self.tight(expr)}"
            case Op("and" | "or", _, "i1"):
                return f"(bool){self.tight(expr)}"
            case _:
                return self.text(expr)

    def _with(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Const(value, kind, _):
                return constant(value, kind)
            case Full(value, kind, _):
                text = constant(value, kind)[0]
                return (f"spread({text})", ATOM) if self.is_vector(expr) else (text, ATOM)
            case Var(name, _, _):
                return self._variable(name, expr)
            case Lanes(dim, kind):
                return self._lanes(dim, kind)
            case Load():
                return self._load(expr)
            case Op("cast", (value,), kind, _):
                return self._cast(value, kind)
            case Op("spread", (value,), _, _):
                return (self.vector(value), ATOM) if self.is_vector(expr) else self._with(value)
            case Op("where", (Var(name, _, _), yes, no), _, _) if name in self.flags:
                flag = f"{self.flags[name]} + in_{self.lane} / LANES]"
                return f"choose_by({flag}, {self.vector(yes)}, {self.vector(no)})", ATOM
            case Op("where", (condition, yes, no), _, _):
                shown = self.vector if self.is_vector(expr) else self._typed
                return f"choose({self.text(condition)}, {shown(yes)}, {shown(no)})", ATOM
            case Op(op, args, _, _):
                return self._operation(op, args, expr)
            case Dot() | Fold():
                raise AssertionError("products and folds are statements of their own")
            case _:
                assert_never(expr)

    def _variable(self, name: str, expr: Var) -> tuple[str, int]:
        if name in self.locals:
            return self.locals[name], ATOM
        if not expr.shape:
            return self.name(name), ATOM
        return self.element(self.tiles[name]), ATOM

    def _lanes(self, dim: str, kind: Type) -> tuple[str, int]:
        if dim == self.lane and not self.alone:
            text = f"lanes_from(in_{dim})"
            return (text if kind == "i32" else f"as<{CPP_VECTORS[kind]}>({text})"), ATOM
        place = f"{self.places[dim]}[in_{dim}]" if dim in self.places else f"in_{dim}"
        return f"({CPP_NUMBERS[kind]}){place}", UNARY

    def _load(self, load: Load) -> tuple[str, int]:
        place = self.address(load.pointer, load.base)
        if self.is_vector(load):
            offset = self.vector(load.offset)
            if load.mask is None:
                return f"gather({place}, {offset})", ATOM
            other = self.vector(Const(load.other, load.type))
            return f"gather({place}, {offset}, {self.vector(load.mask)}, {other})", ATOM
        parts = [self.name(load.pointer)]
        index = " + ".join(self.tight(part, SUM) for part in (load.base, load.offset) if not _is_zero(part))
        text = f"{parts[0]}[{index or '0'}]"
        text = f"widen({text})" if load.type in ("fp16", "bf16") else text
        binds = ATOM
        if load.type == "i1":
            text, binds = f"{text} != 0", COMPARISON
        if load.mask is None:
            return text, binds
        return f"{self.tight(load.mask, UNARY)} ? {text} : {constant(load.other, load.type)[0]}", 0

    def address(self, pointer: str, base: Expr) -> str:
        """Where the offsets of a load or store count from."""
        shown = self.name(pointer)
        return shown if _is_zero(base) else f"{shown} + {self.tight(base, SUM)}"

    def _cast(self, value: Expr, kind: Type) -> tuple[str, int]:
        text = self.text(value)
        if kind in ("fp16", "bf16"):
            if value.type == kind:
                return self._with(value)
            wide = value if value.type == "fp32" else Op("cast", (value,), "fp32", value.shape)
            return f"rounded<{CPP_STORED[kind]}>({self.text(wide)})", ATOM
        if CPP_NUMBERS[value.type] == CPP_NUMBERS[kind]:
            return self._with(value)
        if kind == "i1" and self.is_vector(value) and value.type in WIDE:
            return f"halved({text}) != halved({CPP_VECTORS[value.type]}{{}})", COMPARISON
        if kind == "i1":
            return f"{self.tight(value, SUM)} != 0", COMPARISON
        if not self.is_vector(value):
            return f"({CPP_NUMBERS[kind]}){self.tight(value, UNARY)}", UNARY
        if value.type == "i1":
            ones = f"({text} & 1)"
            return (ones if kind == "i32" else f"as<{CPP_VECTORS[kind]}>{ones}"), ATOM
        return f"as<{CPP_VECTORS[kind]}>({text})", ATOM

    def _operation(self, op: str, args: tuple[Expr, ...], whole: Op) -> tuple[str, int]:
        spelling, is_vector = CPP[op], self.is_vector(whole)
        if op == "div" and is_vector and whole.type == "fp32" and not self.is_vector(args[1]):
            return f"divided({self.vector(args[0])}, {self.text(args[1])})", ATOM
        if op == "exp2" and self.coarse and is_vector and whole.type == "fp32":
            return f"exp2_coarse({self.vector(args[0])})", ATOM
        if is_vector and op in COMPARED and args[0].type in WIDE:
            return spelling.template.format(*[f"halved({self.vector(arg)})" for arg in args]), COMPARISON
        is_call = spelling.binds == ATOM
        operands: list[str] = []
        for position, arg in enumerate(args):
            mixed = is_vector and not self.is_vector(arg)
            if mixed and (is_call or arg.type == "i1"):
                operands.append(self.vector(arg))
                continue
            if is_call:
                operands.append(self._typed(arg))
                continue
            text, binds = self._with(arg)
            needed = spelling.binds + (1 if position or spelling.binds == COMPARISON else 0)
            fits = binds >= needed and not (spelling.binds < SUM and binds < SUM)
            operands.append(text if fits else f"({text})")
        if op == "rsqrt":
            return spelling.template.format(self.text(args[0])), PRODUCT
        return spelling.template.format(*operands), spelling.binds


def constant(value: bool | int | float, kind: str) -> tuple[str, int]:
    """A constant of a type."""
    if isinstance(value, bool) or kind == "i1":
        return str(bool(value)).lower(), ATOM
    if kind.startswith("i"):
        return str(int(value)), ATOM if value >= 0 else UNARY
    if math.isnan(value):
        return '__builtin_nan("")' if kind == "fp64" else '__builtin_nanf("")', ATOM
    if math.isinf(value):
        shown = "__builtin_inf()" if kind == "fp64" else "infinity"
        return (shown, ATOM) if value > 0 else (f"-{shown}", UNARY)
    end = "" if kind == "fp64" else "f"
    return f"{float(value)!r}{end}", ATOM if value >= 0 else UNARY


def _summand(text: str) -> str:
    return f"({text})" if "+" in text else text


def _is_zero(expr: Expr) -> bool:
    return isinstance(expr, Const) and expr.value == 0
