"""Every operation and reduction of the language in a kernel: of pairs, rows, columns, heads and of constants alone."""

from __future__ import annotations

import pytest
import torch

from attnlang import parse
from tests.kernel_calls import check_call, inputs, randoms

SMOOTH = (
    "exp", "exp2", "expm1", "sin", "cos", "tanh", "sigmoid", "softplus", "erf", "atan", "abs", "sign", "relu",
)  # fmt: skip
POSITIVE = ("ln", "log", "log2", "log1p", "sqrt", "rsqrt")
TENSORS = "    tensor t[b, h, q, k]\n    tensor row[q]\n    tensor column[k]\n    tensor head[h]\n"


def check_score(score: str, mask: str = "k <= q + 3", **more: int) -> None:
    """A pattern with this score, with tensors between −2 and 2."""
    text = f"pattern one(a: int = 1):\n{TENSORS}    mask {mask}\n    score {score}\n"
    used = [
        line
        for line in text.splitlines()
        if "tensor" not in line or f"{line.split()[1].split('[')[0]}[" in score
    ]
    pattern = parse("\n".join(used) + "\n")
    q, k, v = inputs(20, 37, H=2)
    t, row, column, head = (x.clamp(-2, 2) for x in randoms((1, 2, 20, 37), (20,), (37,), (2,), seed=3))
    tensors = {"t": t, "row": row, "column": column, "head": head}
    check_call(
        pattern, q, k, v, **{name: tensors[name] for name in tensors if name in pattern.tensors}, **more
    )


@pytest.mark.parametrize("function", SMOOTH)
def test_functions(function: str) -> None:
    for argument in ("t[b, h, q, k]", "row[q]", "head[h] * (q - k) / 9"):
        check_score(f"Q[q] @ K[k] * scale + {function}({argument})")
    check_score(f"{function}(column[k]) * {function}(-0.75) + {function}(0.3)")


@pytest.mark.parametrize("function", POSITIVE)
def test_functions_of_what_is_positive(function: str) -> None:
    for argument in ("t[b, h, q, k] ** 2 + 0.1", "abs(row[q]) + 0.01", "abs(q - k) + 0.5"):
        check_score(f"Q[q] @ K[k] * scale + {function}({argument})")
    check_score(f"{function}(exp(head[h])) + {function}(1.5) * column[k]")


@pytest.mark.parametrize("function", ("floor", "ceil", "round", "int"))
def test_roundings(function: str) -> None:
    """2.5 and its kind are exact in every precision."""
    check_score(f"Q[q] @ K[k] * scale + {function}((q - k) / 2) / 4 + {function}(-2.5) * column[k]")
    check_score("Q[q] @ K[k] * scale", mask=f"{function}((k - q) / 2) <= {function}(1.5)")


@pytest.mark.parametrize("power", ("2", "3", "0", "1.5", "-1", "0.5", "a", "-a"))
def test_powers(power: str) -> None:
    check_score(f"Q[q] @ K[k] * scale + (abs(t[b, h, q, k]) + 0.5) ** ({power})", a=3)
    check_score(f"Q[q] @ K[k] * scale + (abs(head[h]) + 0.5) ** ({power}) + 1.25 ** ({power})", a=2)


def test_powers_of_signed_numbers() -> None:
    check_score("Q[q] @ K[k] * scale + t[b, h, q, k] ** 3 - t[b, h, q, k] ** a", a=4)
    check_score("Q[q] @ K[k] * scale + row[q] ** a", a=3)
    check_score("Q[q] @ K[k] * scale", mask="2 ** (k mod 5) <= 3 ** (q mod 4) + (-1) ** q")


@pytest.mark.parametrize("a", (1, 3, 7, -3))
def test_division_rounds_down(a: int) -> None:
    for operation in ("//", "mod"):
        check_score("Q[q] @ K[k] * scale", mask=f"(q - k) {operation} a <= 2 or k == 0", a=a)
        check_score(f"Q[q] @ K[k] * scale + ((k - 9) {operation} a) / 8", a=a)


@pytest.mark.parametrize("op", ("sum", "max", "min", "mean", "any", "all", "prod", "logsumexp", "count"))
def test_reductions(op: str) -> None:
    body, where = (
        ("w[h, j] + q / 9", "j <= q") if op not in ("any", "all", "count") else ("j + k == q", "j >= 0")
    )
    text = (
        "pattern one():\n    tensor w[h, 11]\n"
        f"    score Q[q] @ K[k] * scale + float({op}({body} for j in 11 if {where}))\n"
    )
    if op == "count":
        text = text.replace(f"{body} for j in 11 if {where}", f"j for j in 11 if {body}")
    q, k, v = inputs(20, 37, H=2)
    (w,) = randoms((2, 11))
    check_call(parse(text), q, k, v, w=w / 4)


@pytest.mark.parametrize("op", ("sum", "max", "min"))
def test_reductions_of_whole_numbers(op: str) -> None:
    text = f"pattern one():\n    tensor w[h, 5]: int\n    mask {op}(w[h, j] * (k mod 3) for j in 5) <= q\n"
    q, k, v = inputs(20, 37, H=2)
    check_call(
        parse(text), q, k, v, w=torch.randint(-5, 6, (2, 5), generator=torch.Generator().manual_seed(0))
    )


@pytest.mark.parametrize(
    "score", ("0.5", "1.0", "-2.5 + tanh(0.5)", "scale", "head[h]", "row[q]", "column[k]", "h / 2")
)
def test_scores_that_do_not_vary(score: str) -> None:
    for mask in ("true", "k <= q", "not (q < q) or k == 3"):
        check_score(score, mask=mask)


@pytest.mark.parametrize("value", ("V[k]", "V[k] * 2", "V[k] * column[k]", "V[k] + row[0]", "tanh(V[k])"))
def test_values(value: str) -> None:
    text = f"pattern one():\n{TENSORS}    mask k <= q + 3\n    value {value}\n"
    used = [
        line
        for line in text.splitlines()
        if "tensor" not in line or f"{line.split()[1].split('[')[0]}[" in value
    ]
    q, k, v = inputs(20, 37, H=2, D=24)
    row, column = randoms((20,), (37,))
    tensors = {"row": row, "column": column}
    pattern = parse("\n".join(used) + "\n")
    check_call(pattern, q, k, v, **{name: tensors[name] for name in tensors if name in pattern.tensors})


def test_truths_of_heads_and_rows_together() -> None:
    text = """pattern one():
    tensor t[h]
    tensor u[q]
    mask (t[h] > 0) and (u[q] > 0 or k < 3) or not (t[h] > 1) and not (u[q] < 1)
"""
    q, k, v = inputs(20, 37, H=3)
    check_call(parse(text), q, k, v, t=torch.tensor([-1.0, 0.5, 2.0]), u=randoms((20,))[0])
