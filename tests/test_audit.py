"""What an outsider tried through the door and the command line that once went wrong, each with its right answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang import AttnlangError, settings

ROOT = Path(__file__).resolve().parent.parent


def inputs(length: int = 9, head_dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v with two heads."""
    make = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(1, 2, length, head_dim, generator=make) for _ in range(3))
    return q, k, v


def example(name: str) -> attnlang.Pattern:
    return attnlang.load(ROOT / "examples" / f"{name}.attn")


def report(action: Any) -> str:
    """What the user reads of the mistake that an action is."""
    with pytest.raises(AttnlangError) as caught:
        action()
    return str(caught.value)


# ----------------------------------------------------------------------------------------------- right answers


@pytest.mark.parametrize(
    "text",
    [
        "pattern p(s: int = 3):\n    mask 0 <= q - k < s\n",
        "pattern p():\n    blocks s of k by 3\n    mask block(q) == block(k)\n",
        "pattern p():\n    let s = 1\n    mask q - k >= 0 * s\n",
        "pattern p():\n    branch s:\n        mask causal\n    output s\n",
    ],
)
def test_a_name_of_the_pattern_does_not_hide_the_scores_of_the_default_softmax(text: str) -> None:
    pattern = attnlang.parse(text)
    q, k, v = inputs()
    out, lse = pattern.reference(q, k, v, return_lse=True)
    scores = (q.double() @ k.double().mT / 8**0.5).masked_fill(~pattern.mask(9, 9, heads=2), -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ v.double())
    torch.testing.assert_close(lse, scores.logsumexp(-1))


def test_kernels_see_the_sign_that_a_view_leaves_to_its_reader() -> None:
    q, k, v = inputs()
    negative = torch.complex(torch.zeros_like(q), -q).conj().imag
    assert negative.is_neg()
    pattern = example("causal")
    torch.testing.assert_close(pattern(negative, k, v, target="interpret"), pattern(q, k, v))


@pytest.mark.parametrize(
    "mask", ["q mod w == 0", "q // w <= 3", "q - k < 5 // w", "q mod (q - k) == 0", "q mod t[k] == 0"]
)
def test_kernels_divide_by_0_as_the_reference_does(mask: str) -> None:
    pattern = attnlang.parse(f"pattern p(w: int = 0):\n    tensor t[n]: int\n    mask {mask} and t[q] >= 0\n")
    q, k, v = inputs()
    t = torch.arange(9) % 3
    got = pattern(q, k, v, t=t, target="interpret")
    torch.testing.assert_close(got.double(), pattern.reference(q, k, v, t=t), atol=1e-5, rtol=1e-5)


def test_kernels_floor_divisions_of_floats() -> None:
    pattern = attnlang.parse(
        "pattern p(x: float = 0.75):\n    tensor t[n]\n"
        "    score Q[q] @ K[k] * scale + (q - 3) // x - (k - 3) mod -x + t[k] // 0.5 + t[q] mod t[k]\n"
    )
    q, k, v = inputs()
    t = torch.tensor([-1.25, 0.75, 2.0, -0.6, 1.5, -2.2, 0.9, 3.1, -0.4])
    got = pattern(q, k, v, t=t, target="interpret")
    torch.testing.assert_close(got.double(), pattern.reference(q, k, v, t=t), atol=1e-4, rtol=1e-4)


def test_dumps_show_every_stage_also_of_what_the_cache_holds(tmp_path: Path) -> None:
    q, k, v = inputs()
    example("local")(q, k, v, target="interpret")
    with settings.override(dump_directory=tmp_path):
        example("local")(q, k, v, target="interpret")
    assert {file.name[0] for file in (tmp_path / "local").iterdir()} >= set("123456")


def test_a_compiled_function_calls_a_pattern_between_its_graphs() -> None:
    code = (
        "import torch, attnlang\n"
        "pattern = attnlang.load('examples/sliding_window.attn')\n"
        "q, k, v = torch.randn(3, 1, 2, 9, 8).unbind()\n"
        "def layer(q, k, v):\n    return pattern(q * 2, k, v, window=4) + 1\n"
        "torch.testing.assert_close(torch.compile(layer, backend='eager')(q, k, v), layer(q, k, v))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------- clear reports


@pytest.mark.parametrize("divisor", ["// 0", "mod 0", "// (3 - 3)"])
def test_a_division_by_0_that_is_seen_at_once(divisor: str) -> None:
    told = report(lambda: attnlang.parse(f"pattern p():\n    mask q {divisor} == 0\n"))
    assert "error[E206]: the divisor of" in told and "this is 0" in told


@pytest.mark.parametrize("target", [3, ["cuda:90"], torch.device("cpu")])
def test_a_target_is_a_text(target: object) -> None:
    pattern, (q, k, v) = example("causal"), inputs()
    given = cast("Any", target)
    assert "a target is a str" in report(lambda: pattern(q, k, v, target=given))
    assert "a target is a str" in report(lambda: pattern.plan(9, 9, target=given))
    assert "a target is a str" in report(lambda: pattern.compile(target=given))


def test_a_target_that_no_compiler_knows() -> None:
    assert "there is no target 'cuda:999'" in report(lambda: example("causal").compile(target="cuda:999"))


@pytest.mark.parametrize("head_dim", [0, -3, 3.5, "64", True, 2**40])
def test_head_sizes_that_are_none(head_dim: object) -> None:
    told = report(lambda: example("causal").compile(target="cuda:90", head_dim=cast("Any", head_dim)))
    assert "'causal': 'head_dim' must be" in told


def test_lengths_that_nobody_has() -> None:
    assert "'NQ' must be below 2**31" in report(lambda: example("causal").plan(2**40, 9))
    assert "'NK' must be below 2**31" in report(lambda: example("causal").mask(9, 2**70))
    assert "NQ × NK of a mask must be below 2**34" in report(lambda: example("causal").mask(2**20, 2**20))
    assert "tiles" in str(example("causal").plan(2**26, 2**26, target="cuda:90"))


@pytest.mark.parametrize("text", [None, b"pattern p():\n    mask causal\n", Path("p.attn")])
def test_a_text_is_a_text(text: object) -> None:
    assert "attnlang.parse: 'text' must be a str" in report(lambda: attnlang.parse(cast("Any", text)))
    told = report(lambda: attnlang.load(ROOT / "examples" / "causal.attn", cast("Any", 3)))
    assert "attnlang.load: 'name' must be a str, this is 3" in told


@pytest.mark.parametrize("offset", [2**31 - 9, -(2**31) + 9, 2**40, -(2**40)])
def test_positions_beyond_what_kernels_count(offset: int) -> None:
    pattern, (q, k, v) = example("causal"), inputs()
    told = report(lambda: pattern(q, k, v, q_offset=offset, target="interpret"))
    assert f"q_offset = {offset} is beyond 2**30" in told
    wanted = pattern.reference(q, k, v, q_offset=offset)
    torch.testing.assert_close(pattern(q, k, v, q_offset=offset).double(), wanted, atol=1e-5, rtol=1e-5)


def test_vmap_is_told_of_the_batch() -> None:
    pattern, (q, k, v) = example("causal"), inputs()
    many = (q[None], k[None], v[None])
    told = report(lambda: cast("Any", torch).vmap(lambda *one: pattern(*one))(*many))
    assert "mapped over by torch.vmap" in told and "part of the batch" in told


def test_an_axis_without_a_length() -> None:
    pattern = attnlang.parse("pattern p(w: int = 0):\n    tensor t[8 // w]\n    score t[0]\n")
    q, k, v = inputs()
    told = report(lambda: pattern(q, k, v, t=torch.ones(3)))
    assert "axis '8 // w' of 't' must have length 8 // w" in told and "here w = 0" in told


def test_a_file_of_mistakes_is_cut_off() -> None:
    many = "".join(f"    let x{number} = unknown{number}\n" for number in range(1000))
    told = report(lambda: attnlang.parse(f"pattern p():\n{many}"))
    assert "more than 100 mistakes" in told and told.count("error[") == 101
    names = "".join(f"pattern p{number}():\n    mask causal\n" for number in range(300))
    assert len(report(lambda: attnlang.parse(names))) < 200


@pytest.mark.parametrize(
    ("library", "code"),
    [
        (
            "lark",
            "import attnlang\ntry:\n    attnlang.parse('')\nexcept attnlang.AttnlangError as e:\n    print(e)",
        ),
        ("matplotlib", "from attnlang.cli import main\nprint(main())"),
    ],
)
def test_a_library_that_is_not_installed(library: str, code: str, tmp_path: Path) -> None:
    start = f"import sys\nsys.modules['{library}'] = None\n"
    words = ["show", str(ROOT / "examples/causal.attn"), "-n", "64", "-o", str(tmp_path / "mask.png")]
    done = subprocess.run(
        [sys.executable, "-c", start + code, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert f"the Python package '{library}' is not installed" in told and "Traceback" not in told


def test_a_pattern_that_stands_twice_is_told_as_such() -> None:
    with pytest.raises(attnlang.AttnlangError, match=r"E201"):
        attnlang.parse("pattern a():\n    mask causal\npattern a():\n    mask k == q\n")


def test_a_pattern_that_claims_to_equal_itself_is_the_one_that_is_meant() -> None:
    assert attnlang.parse("pattern a():\n    mask causal\n    assert equal(a)\n").name == "a"
