"""An index outside its axis reads the nearest entry: in the reference, by scalars, in eager and in kernels alike."""

import torch

import attnlang
from attnlang.call import bind
from attnlang.call_interface import Interface
from attnlang.compiler import inputs_of
from attnlang.ir.scalar import evaluate_scalar

TEXT = """
pattern outside():
    tensor bias[h, 5]
    mask  causal
    score Q[q] @ K[k - 1] * scale + bias[h, q - k - 1]
    value V[k + 1]
"""


def test_the_nearest_entry_is_read_everywhere() -> None:
    pattern = attnlang.parse(TEXT)
    q, k, v = (torch.randn(1, 2, 9, 4, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(2, 5, dtype=torch.float64)
    place = torch.arange(9)
    earlier, later = (place - 1).clamp(min=0), (place + 1).clamp(max=8)
    look = (place[:, None] - place[None, :] - 1).clamp(0, 4)
    scores = q @ k[:, :, earlier].mT / 2 + bias[:, look]
    scores = scores.masked_fill(place[:, None] < place[None, :], float("-inf"))
    wanted = scores.softmax(-1) @ v[:, :, later]
    assert (pattern.reference(q, k, v, bias=bias) - wanted).abs().max() < 1e-12
    assert (pattern(q, k, v, bias=bias, target="eager") - wanted).abs().max() < 1e-12
    single = [tensor.float() for tensor in (q, k, v, bias)]
    kernel = pattern(*single[:3], bias=single[3], target="interpret")
    assert (kernel - wanted).abs().max() < 1e-5
    call = bind(Interface(pattern.ir), q, k, v, scale=None, q_offset=None, arguments={"bias": bias})
    out, _ = evaluate_scalar(pattern.ir, inputs_of(call))
    assert (torch.as_tensor(out, dtype=torch.float64) - wanted).abs().max() < 1e-12
