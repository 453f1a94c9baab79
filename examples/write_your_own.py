"""A pattern of your own in both forms: as text and as a Python function; they are one and the same."""

from typing import Annotated

import torch

import attnlang
from attnlang import Tensor, attention_pattern

# ruff: noqa: F821 (the axes of Tensor["h"] are no names of Python)

TEXT = """
# each head forgets at its own rate, and the first tokens are never forgotten
pattern fading(sinks: int >= 0 = 4):
    tensor rate[h]

    mask  causal
    score Q[q] @ K[k] * scale - (0 if k < sinks else rate[h] * (q - k))
"""


@attention_pattern
def fading(p, rate: Tensor["h"], sinks: Annotated[int, ">= 0"] = 4):
    p.mask(p.causal)
    p.score(p.dot * p.scale - p.where(p.k < sinks, 0, rate[p.h] * (p.q - p.k)))


def main() -> None:
    written = attnlang.parse(TEXT)
    assert written == fading and str(written) == str(fading)
    print(fading)

    q, k, v = (torch.randn(2, 4, 100, 32, dtype=torch.float64) for _ in range(3))
    rate = torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=torch.float64, requires_grad=True)
    out = fading(q, k, v, rate=rate, target="eager")

    # the same by hand
    at = torch.arange(100)
    distance = at[:, None] - at[None, :]
    bias = rate[:, None, None] * distance * (at >= 4)
    scores = (q @ k.mT / 32**0.5 - bias).masked_fill(distance < 0, -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ v)

    out.sum().backward()
    print("gradient of the rates:", rate.grad.tolist())

    try:
        attnlang.parse(TEXT.replace("rate[h] *", "rates[h] *"))
    except attnlang.Diagnostics as mistakes:
        print(mistakes)


if __name__ == "__main__":
    main()
