"""A planned forward pass → its backward pass: which gradients kernels give, by which kernels, or why by none."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.ir.kernel import Kernel
from attnlang.ir.pattern import TRUE, Apply, Attention, Expr, Let, Pattern, Reduce, Symbol
from attnlang.ir.plan import BranchPlan, Obstacle, Plan, Tile
from attnlang.ir.rewrite import conjunction
from attnlang.ir.walk import reads_of
from attnlang.passes.arguments import kernel_arguments
from attnlang.passes.derivative import NoDerivative, feature_axis, gradient
from attnlang.passes.lower_backward import Form, lower_backward, lower_delta
from attnlang.passes.lower_backward_tiles import backward_tiles
from attnlang.passes.lower_expr import padded
from attnlang.passes.planning import facts_of
from attnlang.passes.reweight import factor_of
from attnlang.passes.tiles import pair_work
from attnlang.passes.verify_kernel import verify_kernel
from attnlang.passes.widen import in_double
from attnlang.source import NOWHERE
from attnlang.targets import target_of

DIFFERENTIABLE = ("Q", "K", "V")
"""The tensors by which kernels differentiate; a gradient by any other is the dense evaluation's."""
DELTA_ROWS = 64


@dataclass(frozen=True)
class BackwardPlan:
    """The backward pass of one attention: `delta` runs first, then `kernels`, in any order."""

    attention: Attention
    delta: Kernel
    kernels: tuple[Kernel, ...]


def backward_obstacles(plan: Plan) -> tuple[Obstacle, ...]:
    """Why the gradients by Q, K and V cannot be had from kernels; none when they can. `plan`: of the forward pass."""
    found: list[Obstacle] = []
    for table in plan.tables:
        if made := sorted(_behind(plan.pattern, table) & set(DIFFERENTIABLE)):
            reason = f"the table {table.name} is made of {', '.join(made)}"
            found.append(Obstacle("let", reason, _place(table)))
    for branch in plan.branches:
        found += _of_attention(plan, branch.attention)
    return tuple(dict.fromkeys(found))


def _of_attention(plan: Plan, attention: Attention) -> list[Obstacle]:
    facts = facts_of(plan.pattern, plan.specialization)
    seed: Expr = Symbol("seed", "float")
    whole = Reduce("sum", (attention.feature,), Apply("mul", (seed, attention.value)))
    found: list[Obstacle] = []
    for construct, expr in (
        ("score", attention.score),
        ("reweight", factor_of(attention)),
        ("value", whole),
    ):
        for tensor in DIFFERENTIABLE if expr is not None else ():
            feature = feature_axis(tensor, attention, plan.specialization.head_dim)
            try:
                gradient(expr or TRUE, seed, tensor, feature, facts)
            except NoDerivative as reason:
                told = f"{reason}, which no kernel differentiates"
                found.append(Obstacle(construct, told, _place(attention)))
    return found


def plan_backward(
    plan: Plan, *, form: Form = "split", grouped: bool = False, wanted: str = "QKV", lse_gradient: bool = False,
    tiles: tuple[Tile, Tile] | None = None,
) -> tuple[BackwardPlan, ...]:  # fmt: skip
    """The backward pass of each attention of a forward plan that has kernels and no `backward_obstacles`.

    `grouped`: heads share key/value heads; `wanted`: the tensors whose gradients are needed; `lse_gradient`: whether
    gradients arrive at the lse as well;
    `tiles`: other block lengths than those of the table, of programs over queries and over keys.
    """
    return tuple(
        _branch(plan, branch, form, grouped, wanted, lse_gradient, tiles or _tiles(plan, branch))
        for branch in plan.branches
    )


def _tiles(plan: Plan, branch: BranchPlan) -> tuple[Tile, Tile]:
    specialization = plan.specialization
    features = max(padded(specialization.head_dim), padded(specialization.value_dim))
    target = target_of(specialization.target)
    masked = conjunction(branch.attention.mask, branch.attention.sparsity) != TRUE
    return backward_tiles(target, specialization.dtype, features, pair_work(branch.kernel).loads, masked)


def _branch(
    plan: Plan, branch: BranchPlan, form: Form, grouped: bool, wanted: str, lse_gradient: bool,
    tiles: tuple[Tile, Tile],
) -> BackwardPlan:  # fmt: skip
    specialization, banner = plan.specialization, branch.kernel.banner
    arguments = kernel_arguments(plan.pattern, plan.tables, specialization)
    facts = facts_of(plan.pattern, specialization)
    name = branch.kernel.name.removesuffix(f"_{branch.walk}").removesuffix("_forward") + "_backward"
    delta = lower_delta(
        f"{name}_delta", banner, branch.attention, DELTA_ROWS, arguments, facts, specialization, lse_gradient
    )
    kernels = lower_backward(
        name, banner, branch.attention, branch.bands, tiles, arguments, facts, specialization, form=form,
        grouped=grouped, wanted=wanted, walk=branch.walk,
    )  # fmt: skip
    if specialization.dtype == "fp64":
        delta, kernels = in_double(delta), tuple(in_double(kernel) for kernel in kernels)
    for kernel in (delta, *kernels):
        verify_kernel(kernel, "lower_backward")
    return BackwardPlan(branch.attention, delta, kernels)


def _behind(pattern: Pattern, table: Let) -> set[str]:
    """Every tensor that a table is made of, through other tables too."""
    lets = {stage.name: stage for stage in pattern.stages if isinstance(stage, Let)}
    found: set[str] = set()
    queue = [table.name]
    while queue:
        name = queue.pop()
        if name not in found and name in lets:
            queue += [read.source for read in reads_of(lets[name].body)]
        found.add(name)
    return found


def _place(stage: Let | Attention) -> str:
    return "" if stage.span == NOWHERE else stage.span.location()
