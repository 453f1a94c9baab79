"""The driver, readable as the list of its stages: text, tree, imports, meaning, plan, kernels, launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attnlang import syntax
from attnlang.call import Binding, Call
from attnlang.call_interface import check_reserved, check_text
from attnlang.compiler_imports import Whole, claimed_equal, needed_by, with_imports, without_sparsity
from attnlang.errors import Diagnostic, Diagnostics, NoSuchPattern, nearest
from attnlang.errors_driver import LibraryMissing, SizeTooLarge, WrongDeviceForTarget
from attnlang.ir import pattern as ir
from attnlang.settings import options
from attnlang.source import Source
from attnlang.targets import target_ahead, target_of
from attnlang.watch import dump

if TYPE_CHECKING:
    import torch

    from attnlang.call_ahead import Ahead
    from attnlang.execute_again import Again
    from attnlang.execute_ahead import Compiled
    from attnlang.execute_ahead_cpu import CompiledCpp, PrintedCpp
    from attnlang.ir.interpret import Inputs, Result
    from attnlang.ir.kernel import Type
    from attnlang.ir.plan import Report


MOST_NAMES = 10
MOST_PAIRS = 2**34


@dataclass(frozen=True)
class Unit:
    """One pattern on its way: `tree` holds the pattern `name` and what it uses, `meaning` is its pattern IR."""

    name: str
    tree: syntax.File
    meaning: ir.Pattern


# ----------------------------------------------------------------------------------------- text to meaning


def load(path: str | Path, name: str | None = None) -> Unit:
    """The pattern `name` of a file; without a name its only one, or the one named like the file.

    Raises Diagnostics with every mistake of the file and of the files it imports.
    """
    check_text("load", "name", "" if name is None else name)
    whole = _read(path)
    return _unit(whole, choose(whole, name, str(path)))


def load_all(path: str | Path) -> tuple[Unit, ...]:
    """Every pattern that stands in a file, in order. Raises Diagnostics with every mistake of all of them."""
    whole = _read(path)
    units: list[Unit] = []
    mistakes: dict[str, Diagnostic] = {}
    for name in whole.own:
        try:
            units.append(_unit(whole, name))
        except Diagnostics as found:
            mistakes |= {error.report(): error for error in found.errors}
    if mistakes:
        raise Diagnostics(list(mistakes.values()))
    return tuple(units)


def parse(text: str, name: str | None = None) -> Unit:
    """The pattern `name` of a text; without a name its only one."""
    check_text("parse", "text", text)
    check_text("parse", "name", "" if name is None else name)
    whole = _whole(tree_of(Source("<text>", text)), None)
    return _unit(whole, choose(whole, name, "<text>"))


def compiled_tree(tree: syntax.File, name: str) -> Unit:
    """A pattern whose tree was made without a text; raises Diagnostics with every mistake of meaning."""
    return _unit(Whole(tree, (name,)), name)


def source_of(path: str | Path) -> Source:
    """The text of a file; raises a Diagnostic where it is missing, unreadable, too large, empty or no text."""
    from attnlang.grammar.reading import read_source

    return read_source(path)


def tree_of(source: Source) -> syntax.File:
    """The tree of a text as it is written. Raises Diagnostics with every mistake, also of meaning where lines allow."""
    try:
        from attnlang.grammar.parser import parse_file
    except ModuleNotFoundError as missing:
        raise LibraryMissing(library=missing.name) from None
    try:
        return parse_file(source)
    except Diagnostics as mistakes:
        from attnlang.compiler_mistakes import with_meaning

        raise with_meaning(mistakes, prelude()) from None


def text_of(tree: syntax.File) -> str:
    """The canonical text of a tree."""
    from attnlang.grammar.formatter import format_file

    return format_file(tree)


def dense(tree: syntax.File, name: str) -> syntax.File:
    """The tree with the sparsity of the pattern left out, in its branches too."""
    items = tuple(
        without_sparsity(item) if isinstance(item, syntax.PatternDefinition) and item.name == name else item
        for item in tree.items
    )
    return needed_by(syntax.File(items, span=tree.span), name)


@cache
def prelude() -> syntax.File:
    """The standard library."""
    from importlib.resources import files

    return tree_of(Source("prelude.attn", files("attnlang").joinpath("prelude.attn").read_text("utf-8")))


def meaning(tree: syntax.File, name: str) -> ir.Pattern:
    """The pattern IR of a pattern in a tree without imports. Raises Diagnostics with every mistake of meaning."""
    from attnlang.elaborate import elaborate
    from attnlang.ir.text import pattern_text
    from attnlang.ir.verify import verify

    pattern = elaborate(tree, name, {}, prelude())
    check_reserved(pattern)
    if options().dump_directory is not None:
        dump(name, "3-pattern.txt", pattern_text(pattern))
    verify(pattern, after="elaborate")
    return pattern


def choose(whole: Whole, name: str | None, path: str) -> str:
    """The name of the pattern that is meant; raises Diagnostics where that is not clear."""
    if name is not None:
        if name in whole.own:
            return name
        near = nearest(name, list(whole.own))
        advice = f"did you mean '{near}'?" if near else f"it has {_listed(whole.own)}" if whole.own else ""
        raise Diagnostics([NoSuchPattern(None, advice, problem=f"{path} has no pattern '{name}'")])
    if not whole.own:
        problem = f"{path} has no pattern, only definitions"
        raise Diagnostics([NoSuchPattern(None, "import it from a file with a pattern", problem=problem)])
    patterns = [item for item in whole.file.items if isinstance(item, syntax.PatternDefinition)]
    claimed = {other for pattern in patterns for other in claimed_equal(pattern)}
    names = tuple(dict.fromkeys(whole.own))  # a name that stands twice is told when its pattern is elaborated
    roots = [own for own in names if own not in claimed] or list(names)
    stem = Path(path).stem
    if stem in names or len(roots) == 1:
        return stem if stem in names else roots[0]
    problem = f"{path} has {len(names)} patterns: {_listed(names)}"
    raise Diagnostics([NoSuchPattern(None, f"name one of them: name='{names[-1]}'", problem=problem)])


def _listed(names: tuple[str, ...]) -> str:
    """The first few names."""
    return ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")


def _read(path: str | Path) -> Whole:
    try:
        return _whole(_tree_at(str(path)), str(path))
    except Diagnostic as mistake:
        raise Diagnostics([mistake]) from None


def _tree_at(path: str) -> syntax.File:
    from attnlang.grammar.reading import read_source

    return tree_of(read_source(path))


def _whole(file: syntax.File, path: str | None) -> Whole:
    standard = frozenset(item.name for item in prelude().items if isinstance(item, syntax.Definition))
    return with_imports(file, path, _tree_at, standard)


def _unit(whole: Whole, name: str) -> Unit:
    tree = needed_by(whole.file, name)
    if options().dump_directory is not None:
        dump(name, "1-source.attn", whole.file.span.source.text)
        dump(name, "2-syntax.attn", text_of(tree))
    return Unit(name, tree, meaning(whole.file, name))


# --------------------------------------------------------------------------------------- meaning to result


def untraced(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A call that `torch.compile` does not look into, but runs between two graphs."""
    import torch

    if not torch.compiler.is_compiling():
        return function(*arguments, **named)
    from attnlang.runtime.torch_graphs import between_graphs

    return between_graphs(function, *arguments, **named)


def run(pattern: ir.Pattern, call: Call, target: str | None, want: frozenset[str]) -> Result:
    """The results of a call on a target (None: ATTNLANG_TARGET, else the device of its tensors)."""
    chosen = target or options().target or device_target(call.device)
    kind = target_of(chosen).kind
    if kind == "eager":
        return eager(pattern, call, want)
    check_device(chosen, call.device)
    from attnlang.execute import execute

    try:
        return execute(pattern, inputs_of(call), chosen, want)
    except not_here() as missing:
        if target is not None:
            raise
        told = missing.fields
        if "reason" in told:
            warn_dense(pattern.name, chosen, told["reason"])
        else:
            warn_dense("everything", chosen, f"{told['problem']}; {told['install']}")
    return eager(pattern, call, want)


def not_here() -> tuple[type[Diagnostic], ...]:
    """The errors of a target that has no kernel for a pattern, or none at all on this machine."""
    from attnlang.execute_programs import NoKernel
    from attnlang.runtime.cpp_errors import CompilerMissing

    return NoKernel, CompilerMissing


def again(pattern: ir.Pattern, call: Call, target: str | None, want: frozenset[str]) -> Again | None:
    """A call that just ran, ready to run again with other tensors; None where it did not run as one native kernel."""
    from attnlang.errors import AttnlangError
    from attnlang.execute_again import again as made_ready

    chosen = target or options().target or device_target(call.device)
    if target_of(chosen).kind != "cpu":
        return None
    try:
        return made_ready(pattern, inputs_of(call), chosen, want)
    except AttnlangError:  # it ran some other way, which has been said
        return None


@cache
def warn_dense(name: str, target: str, reason: str) -> None:
    """Says once for each pattern and target that dense PyTorch runs where nobody asked for it."""
    warnings.warn(f"{name} runs as dense PyTorch on {target}: {reason}", RuntimeWarning, stacklevel=2)


def eager(pattern: ir.Pattern, call: Call, want: frozenset[str]) -> Result:
    """Dense PyTorch in the dtype of the call, on its device, differentiable by autograd."""
    from attnlang.ir.interpret import evaluate

    return evaluate(pattern, inputs_of(call), dtype=call.dtype, want=want)


def reference(pattern: ir.Pattern, call: Call, want: frozenset[str]) -> Result:
    """Dense PyTorch in float64: the meaning of the pattern."""
    import torch

    from attnlang.ir.interpret import evaluate

    return evaluate(pattern, inputs_of(call), dtype=torch.float64, want=want)


def mask(pattern: ir.Pattern, binding: Binding) -> torch.Tensor:
    """What the queries see of the keys: bool [B or 1, H or 1, NQ, NK]."""
    from attnlang.ir.interpret import visible

    pairs = binding.sizes["NQ"] * binding.sizes["NK"]
    if pairs > MOST_PAIRS:
        what = "NQ × NK of a mask"
        raise Diagnostics([SizeTooLarge(pattern=f"'{pattern.name}'", what=what, limit="2**34", found=pairs)])
    return visible(pattern, inputs_of(binding))


def report(pattern: ir.Pattern, binding: Binding, target: str | None, dtype: Type) -> Report:
    """The decision record of a pattern at a size."""
    from attnlang.planning import report as planned

    return planned(pattern, binding, plan_target(target), dtype)


def compile_ahead(pattern: ir.Pattern, target: str | None, calls: Ahead) -> Compiled | CompiledCpp:
    """The kernels of a pattern for a target, without tensors and without a GPU. Raises NothingToCompile."""
    from attnlang.execute_ahead import compile_ahead as compiled

    place = target_ahead(target or plan_target(None))
    if target_of(place).kind == "cpu":
        return print_ahead(pattern, place, calls).compiled()
    shape = (calls.head_dim, calls.value_dim, calls.dtype, calls.parameters)
    return compiled(pattern, place, *shape, lse=calls.lse)


def print_ahead(pattern: ir.Pattern, target: str, calls: Ahead) -> PrintedCpp:
    """The C++ of a pattern for `cpu` or `cpu:LEVEL`, not compiled."""
    from attnlang.execute_ahead_cpu import print_cpu

    shape = (calls.head_dim, calls.value_dim, calls.dtype, calls.parameters)
    return print_cpu(pattern, target, *shape, lse=calls.lse)


def inputs_of(binding: Binding) -> Inputs:
    """The arguments as the interpreter takes them."""
    from attnlang.ir.interpret import Inputs

    q, k, v = (binding.q, binding.k, binding.v) if isinstance(binding, Call) else (None, None, None)
    return Inputs(q, k, v, binding.sizes, binding.scalars, binding.tensors)


# -------------------------------------------------------------------------------------- targets and devices


def device_target(device: torch.device) -> str:
    """The target of a device: the architecture of a GPU, `cpu` for the CPU, `eager` everywhere else."""
    if device.type != "cuda":
        return "cpu" if device.type == "cpu" else "eager"
    import torch

    if torch.version.hip is not None:
        properties: object = cast("Any", torch.cuda).get_device_properties(device)
        name = str(getattr(properties, "gcnArchName", ""))  # such as gfx942:sramecc+:xnack-
        return f"hip:{name.partition(':')[0]}"
    major, minor = torch.cuda.get_device_capability(device)
    return f"cuda:{major}{minor}"


def runnable_target(device: torch.device) -> str:
    """The target of a device, `eager` for a CPU without a C++ compiler."""
    from attnlang.execute_programs import native_level
    from attnlang.runtime.cpp_errors import CompilerMissing

    target = device_target(device)
    try:
        if target == "cpu":
            native_level()
        return target
    except CompilerMissing:
        return "eager"


def plan_target(target: str | None) -> str:
    """The target of a plan without tensors: as asked, ATTNLANG_TARGET, the GPU of this machine, or `cuda:90`."""
    chosen = target or options().target
    if chosen is None:
        import torch

        chosen = device_target(torch.device("cuda")) if torch.cuda.is_available() else "cuda:90"
    return target_of(chosen).name


def check_device(target: str, device: torch.device) -> None:
    """Raises WrongDeviceForTarget where tensors of the device cannot be read by kernels of the target."""
    family, _, model = target.partition(":")
    if family in ("cuda", "hip"):
        actual = device_target(device)
        newer = family == "cuda" and actual.startswith("cuda:") and int(actual[5:]) >= int(model)
        if actual != target and not newer:
            found = f"{device} ({actual})" if device.type == "cuda" else f"'{device}'"
            advice = 'target="eager" and target="interpret" run on any machine'
            raise WrongDeviceForTarget(None, advice, target=target, wanted=f"a {target} GPU", found=found)
    elif family == "cpu" and device.type != "cpu":
        raise WrongDeviceForTarget(
            None, "move them with .cpu()", target=target, wanted="the CPU", found=f"'{device}'"
        )
