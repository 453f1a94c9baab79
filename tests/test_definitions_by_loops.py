"""The score and weight formulas of the definitions, written once more in plain Python numbers, one pair at a time."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.definitions import DEFINITIONS

torch.set_num_threads(1)

N, H, D, HEIGHT, WIDTH = 8, 2, 3, 2, 4
SCALE = 0.7
Pair = Callable[[int, int, int], float]
"""(h, q, k) → a score or a weight."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(numbers: list[Any]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


Q, K, V = random(1, H, N, D), random(1, H, N, D, seed=1), random(1, H, N, 2, seed=2)
q_rows: list[list[list[float]]] = Q[0].tolist()
k_rows: list[list[list[float]]] = K[0].tolist()
PER_HEAD = random(H, seed=3)
ROWS = random(1, H, N, seed=4)
ROWS_TOO = random(1, H, N, seed=5)
TABLE = random(H, 9, seed=6)
TABLE_TOO = random(H, 9, seed=7)
REL = random(H, 5, D, seed=8)
PAIRS = random(H, N, N, seed=9)


def inner(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def raw(h: int, q: int, k: int) -> float:
    return inner(q_rows[h][q], k_rows[h][k])


def dot(h: int, q: int, k: int) -> float:
    return SCALE * raw(h, q, k)


def cosine(h: int, q: int, k: int) -> float:
    return raw(h, q, k) / math.sqrt(inner(q_rows[h][q], q_rows[h][q]) * inner(k_rows[h][k], k_rows[h][k]))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def place(n: int) -> tuple[int, int]:
    return divmod(n, WIDTH)


def music(h: int, q: int, k: int) -> float:
    row: list[float] = REL[h, max(k - q, 1 - 5) + 5 - 1].tolist()
    return SCALE * (raw(h, q, k) + inner(q_rows[h][q], row))


def selective(h: int, q: int, k: int) -> float:
    return (float(ROWS[0, h, q]) + logistic(float(PER_HEAD[h])) * math.log(q + 1)) * dot(h, q, k)


def swin_v2(h: int, q: int, k: int) -> float:
    (y_q, x_q), (y_k, x_k) = place(q), place(k)
    index = (y_q - y_k + 1) * 3 + (x_q - x_k + 1)
    return cosine(h, q, k) * math.exp(min(float(5 * PER_HEAD[h]), math.log(100))) + float(TABLE[h, index])


def gaussian(h: int, q: int, k: int) -> float:
    (y_q, x_q), (y_k, x_k) = place(q), place(k)
    apart = (y_q - y_k) ** 2 + (x_q - x_k) ** 2
    bells = [
        math.exp(-apart / (2 * (float(TABLE_TOO[h, j]) ** 2 + 1e-5))) * float(TABLE[h, j]) for j in range(9)
    ]
    return dot(h, q, k) * sum(bells)


def additive(h: int, q: int, k: int) -> float:
    terms = zip(REL[h, 0].tolist(), q_rows[h][q], k_rows[h][k], strict=True)
    return sum(w * math.tanh(a + b) for w, a, b in terms)


def moved(n: int) -> tuple[int, int]:
    """(y', x') of a swin window shifted by 1 on 2×4 places."""
    return (n // WIDTH - 1) % HEIGHT, (n % WIDTH - 1) % WIDTH


def swin(h: int, q: int, k: int) -> float:
    (y_q, x_q), (y_k, x_k) = moved(q), moved(k)
    return dot(h, q, k) + float(TABLE[h, (y_q - y_k + 1) * 3 + (x_q - x_k + 1)])


def swin_cell(q: int, k: int) -> bool:
    """The cell, cut where the shift wraps round: the last row and the last column."""
    (y_q, x_q), (y_k, x_k) = moved(q), moved(k)
    return x_q // 2 == x_k // 2 and (x_q == 3) == (x_k == 3) and (y_q == 1) == (y_k == 1)


def causal(q: int, k: int) -> bool:
    return k <= q


def everywhere(q: int, k: int) -> bool:
    return True


def one_window(q: int, k: int) -> bool:
    """Windows of 2×2 places."""
    (y_q, x_q), (y_k, x_k) = place(q), place(k)
    return y_q // 2 == y_k // 2 and x_q // 2 == x_k // 2


GRID = {"height": HEIGHT, "width": WIDTH}
SCORES: list[tuple[str, Pair, Callable[[int, int], bool], dict[str, Any]]] = [
    ("full", dot, everywhere, {}),
    ("alibi", lambda h, q, k: dot(h, q, k) - float(PER_HEAD[h]) * (q - k), causal, {"slopes": PER_HEAD}),
    ("music", music, causal, {"reach": 5, "rel": REL}),
    ("softcap", lambda h, q, k: 1.5 * math.tanh(dot(h, q, k) / 1.5), causal, {"cap": 1.5}),
    ("selective", selective, causal, {"tau": ROWS, "alpha": PER_HEAD}),
    ("cosine", swin_v2, one_window, {**GRID, "window": 2, "logit_scale": 5 * PER_HEAD, "bias": TABLE}),
    ("swin", swin, swin_cell, {**GRID, "window": 2, "shift": 1, "bias": TABLE}),
    ("gaussian_mixture", gaussian, everywhere, {**GRID, "components": 9, "alpha": TABLE, "sigma": TABLE_TOO}),
    ("additive", additive, everywhere, {"w": REL[:, 0]}),
    ("memory_bank", lambda h, q, k: cosine(h, q, k) / 0.05, everywhere, {}),
    ("mixture_of_heads", dot, causal, {"gate": torch.ones(1, N, H).double()}),
]


@pytest.mark.parametrize(("name", "score", "visible", "given"), SCORES, ids=[name for name, *_ in SCORES])
def test_scores(name: str, score: Pair, visible: Callable[[int, int], bool], given: dict[str, Any]) -> None:
    result = DEFINITIONS[name].function(Q, K, V, scale=SCALE, **given)
    assert result.lse is not None and result.weights is not None
    for h in range(H):
        for q in range(N):
            powers = [math.exp(score(h, q, k)) if visible(q, k) else 0.0 for k in range(N)]
            expected = exact([power / sum(powers) for power in powers])
            torch.testing.assert_close(result.weights[0, h, q], expected)
            torch.testing.assert_close(result.out[0, h, q], expected @ V[0, h])
            assert float(result.lse[0, h, q]) == pytest.approx(math.log(sum(powers)))


def causal_row(score: Pair, h: int, q: int) -> list[float]:
    return [score(h, q, k) if k <= q else 0.0 for k in range(N)]


def shares(row: list[float]) -> list[float]:
    return [x / sum(row) if sum(row) else 0.0 for x in row]


def softmax_row(h: int, q: int) -> list[float]:
    return shares(causal_row(lambda h, q, k: math.exp(dot(h, q, k)), h, q))


def softplus_reweighted(h: int, q: int) -> list[float]:
    def positive(h: int, q: int, k: int) -> float:
        return math.log(1 + math.exp(math.log(D) * math.log(q + 1) * cosine(h, q, k)))

    first = shares(causal_row(positive, h, q))
    return shares([max((q + 1) * a - (1.1 if q >= 3 else 0.0), 0.0) ** 3 for a in first])


def universal_rpe(h: int, q: int) -> list[float]:
    where = [min(max(k - q, -4), 4) + 4 for k in range(N)]
    row = shares([math.exp(dot(h, q, k) + float(TABLE[h, where[k]])) for k in range(N)])
    return [w * float(TABLE_TOO[h, where[k]]) for k, w in enumerate(row)]


def gated_positional(h: int, q: int) -> list[float]:
    def positional(k: int) -> float:
        (y_q, x_q), (y_k, x_k) = place(q), place(k)
        across, down = x_k - x_q, y_k - y_q
        a, b, c = TABLE[h, :3].tolist()
        return math.exp(a * across + b * down + c * (across**2 + down**2))

    gate = logistic(float(PER_HEAD[h]))
    content = shares([math.exp(dot(h, q, k)) for k in range(N)])
    position = shares([positional(k) for k in range(N)])
    return [(1 - gate) * c + gate * p for c, p in zip(content, position, strict=True)]


def sink(h: int, q: int) -> list[float]:
    powers = causal_row(lambda h, q, k: math.exp(dot(h, q, k)), h, q)
    return [power / (math.exp(float(PER_HEAD[h])) + sum(powers)) for power in powers]


def affine(h: int, q: int) -> list[float]:
    row = softmax_row(h, q)
    return [float(ROWS[0, h, q]) * w + float(ROWS_TOO[0, h, q]) if k <= q else 0.0 for k, w in enumerate(row)]


def sigmoid(h: int, q: int) -> list[float]:
    return causal_row(lambda h, q, k: logistic(dot(h, q, k) + float(PER_HEAD[h])), h, q)


def relu(h: int, q: int) -> list[float]:
    return causal_row(lambda h, q, k: max(dot(h, q, k), 0.0) / (q + 1), h, q)


def taylor(h: int, q: int) -> list[float]:
    return shares(causal_row(lambda h, q, k: 1 + dot(h, q, k) + dot(h, q, k) ** 2 / 2, h, q))


def tanh_static(h: int, q: int) -> list[float]:
    return [float(PER_HEAD[h]) * math.tanh(raw(h, q, k) / D) + float(PAIRS[h, q, k]) for k in range(N)]


def retention(h: int, q: int) -> list[float]:
    return causal_row(lambda h, q, k: (0.6, 0.9)[h] ** (q - k) * raw(h, q, k), h, q)


def linear(h: int, q: int) -> list[float]:
    def phi(x: float) -> float:
        return x + 1 if x > 0 else math.exp(x)

    def product(h: int, q: int, k: int) -> float:
        return inner([phi(x) for x in q_rows[h][q]], [phi(x) for x in k_rows[h][k]])

    return shares(causal_row(product, h, q))


def talking(h: int, q: int) -> list[float]:
    pre, post = TABLE[:, :2].tolist(), TABLE_TOO[:, :2].tolist()
    mixed = [
        shares(
            [math.exp(sum(pre[m][n] * dot(n, q, k) for n in range(H))) if k <= q else 0.0 for k in range(N)]
        )
        for m in range(H)
    ]
    return [sum(post[h][n] * mixed[n][k] for n in range(H)) for k in range(N)]


PRE = {"q1": 11, "q2": 12, "k1": 13, "k2": 14, "qd": 15, "kd": 16}
MIXING = {
    f"{side}_{name}": random(1, N, 2, H, seed=seed + shift)
    if name[1] in "12"
    else random(1, N, H, seed=seed + shift)
    for side, shift in (("pre", 0), ("post", 20))
    for name, seed in PRE.items()
}


def composed(h: int, q: int) -> list[float]:
    def compose(side: str, A: list[float], k: int) -> list[float]:
        t = {name: MIXING[f"{side}_{name}"][0].tolist() for name in PRE}
        return [
            A[m]
            + sum(sum(A[n] * t["q1"][q][r][n] for n in range(H)) * t["q2"][q][r][m] for r in range(2))
            + sum(sum(A[n] * t["k1"][k][r][n] for n in range(H)) * t["k2"][k][r][m] for r in range(2))
            + A[m] * t["qd"][q][m]
            + A[m] * t["kd"][k][m]
            for m in range(H)
        ]

    before = [compose("pre", [dot(n, q, k) for n in range(H)], k) for k in range(q + 1)]
    rows = [shares([math.exp(before[k][m]) if k <= q else 0.0 for k in range(N)]) for m in range(H)]
    return [compose("post", [rows[m][k] for m in range(H)], k)[h] for k in range(N)]


Row = Callable[[int, int], list[float]]
WEIGHTS: list[tuple[str, Row, dict[str, Any]]] = [
    ("softplus_reweighted", softplus_reweighted, {"power": 3, "offset": 1.1}),
    ("universal_rpe", universal_rpe, {"reach": 5, "bias": TABLE, "factor": TABLE_TOO}),
    ("gated_positional", gated_positional, {**GRID, "direction": TABLE[:, :3], "gate": PER_HEAD}),
    ("sink_softmax", sink, {"sink": PER_HEAD}),
    ("affine_scaled", affine, {"alpha": ROWS, "beta": ROWS_TOO}),
    ("sigmoid", sigmoid, {"bias": PER_HEAD}),
    ("relu", relu, {}),
    ("taylor", taylor, {}),
    ("based", taylor, {}),
    ("tanh_static", tanh_static, {"alpha": PER_HEAD, "m": PAIRS}),
    ("retention", retention, {"decay": exact([0.6, 0.9])}),
    ("linear", linear, {}),
    ("talking_heads", talking, {"pre": TABLE[:, :2], "post": TABLE_TOO[:, :2]}),
    ("composed_heads", composed, MIXING),
]


@pytest.mark.parametrize(("name", "row", "given"), WEIGHTS, ids=[name for name, *_ in WEIGHTS])
def test_weights(name: str, row: Row, given: dict[str, Any]) -> None:
    result = DEFINITIONS[name].function(Q, K, V, scale=SCALE, **given)
    assert result.weights is not None
    for h in range(H):
        for q in range(N):
            expected = exact(row(h, q))
            torch.testing.assert_close(result.weights[0, h, q], expected)
            torch.testing.assert_close(result.out[0, h, q], expected @ V[0, h])


def test_flow_by_loops() -> None:
    """One head, six queries on five keys, every sum written out."""
    rows, e = Q[:, :1, :6], 1e-6
    q = torch.sigmoid(rows[0, 0]).tolist()
    k = torch.sigmoid(K[0, 0, :5]).tolist()

    def with_sum(x: list[float], others: list[list[float]], factors: list[float]) -> float:
        total = [sum(f * row[d] for f, row in zip(factors, others, strict=True)) + e for d in range(D)]
        return inner([value + e for value in x], total)

    incoming = [1 / with_sum(x, k, [1.0] * 5) for x in q]
    outgoing = [1 / with_sum(x, q, [1.0] * 6) for x in k]
    conserved_in = [with_sum(x, k, outgoing) for x in q]
    conserved_out = [min(max(with_sum(x, q, incoming), -1.0), 1.0) for x in k]
    competition = shares([math.exp(x) for x in conserved_out])
    weights = [
        [
            logistic(conserved_in[i] * 6 / 5) * incoming[i] * inner(q[i], k[j]) * competition[j] * 5
            for j in range(5)
        ]
        for i in range(6)
    ]
    expected = exact(weights) @ V[0, 0, :5]
    assert any(x < 1.0 for x in conserved_out) and any(x == 1.0 for x in conserved_out)
    torch.testing.assert_close(
        DEFINITIONS["flow"].function(rows, K[:, :1, :5], V[:, :1, :5]).out[0, 0], expected
    )
