"""The door and the Pattern: loading, calling, text and tree, masks, dense, copies, dumps."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import threading
import time
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang import settings
from attnlang.call_interface import RESERVED
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.errors_driver import CannotDump

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.attn"))

WINDOW = """\
# Comments are no part of a pattern.
def near(reach) = q - k < reach

def unused() = true

pattern near_ones(reach: int >= 1 = 4):
    "The last `reach` tokens."
    tensor slopes[h]
    mask     causal  # nor are these
    sparsity near(reach)
    score    Q[q] @ K[k] * scale - slopes[h] * (q - k)
"""


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and slopes."""
    make = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 5, 8), (2, 2, 9, 8), (2, 2, 9, 6), (4,))
    q, k, v, slopes = (torch.randn(shape, generator=make, dtype=torch.float64).to(dtype) for shape in shapes)
    return q, k, v, slopes


def by_hand(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """out, lse and weights of WINDOW."""
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    rows, columns = torch.arange(4, 9)[:, None], torch.arange(9)
    scores = q @ k.mT / 8**0.5 - slopes[:, None, None] * (rows - columns)
    scores = scores.masked_fill((columns > rows) | (rows - columns >= reach), float("-inf"))
    weights = scores.softmax(-1)
    return weights @ v, scores.logsumexp(-1), weights


# -------------------------------------------------------------------------------------------------- door


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert attnlang.__version__ == project["version"]


def test_every_name_of_the_door_is_there() -> None:
    assert set(attnlang.__all__) <= set(dir(attnlang))
    assert [name for name in attnlang.__all__ if getattr(attnlang, name) is None] == []
    name = "lod"
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        assert getattr(attnlang, name)


def test_importing_is_quick() -> None:
    code = "import time; a = time.perf_counter(); import attnlang; print(time.perf_counter() - a)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.15


# ----------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_its_own_text(path: Path) -> None:
    pattern = attnlang.load(path)
    assert pattern.name == path.stem
    again = attnlang.parse(str(pattern))
    assert (again, hash(again), str(again), again.ir) == (pattern, hash(pattern), str(pattern), pattern.ir)
    dense = pattern.dense()
    assert attnlang.parse(str(dense)) == dense
    assert pickle.loads(pickle.dumps(pattern)) == pattern


def test_the_text_is_canonical_and_complete() -> None:
    assert str(attnlang.parse(WINDOW)) == (
        "def near(reach) = q - k < reach\n"
        "\n"
        "pattern near_ones(reach: int >= 1 = 4):\n"
        '    "The last `reach` tokens."\n'
        "    tensor slopes[h]\n"
        "    mask     causal\n"
        "    sparsity near(reach)\n"
        "    score    Q[q] @ K[k] * scale - slopes[h] * (q - k)\n"
    )


def test_what_a_pattern_says_of_itself() -> None:
    pattern = attnlang.parse(WINDOW)
    assert (pattern.name, pattern.doc) == ("near_ones", "The last `reach` tokens.")
    assert [(name, p.dtype, p.default, p.bounds) for name, p in pattern.params.items()] == [
        ("reach", "int", 4, (("ge", 1),))
    ]
    assert [(name, t.dtype, [a.written for a in t.axes]) for name, t in pattern.tensors.items()] == [
        ("slopes", "float", ["h"])
    ]
    assert repr(pattern) == "<attnlang.Pattern near_ones(reach, slopes)>"


def test_equality_is_by_tree() -> None:
    pattern = attnlang.parse(WINDOW)
    assert (
        attnlang.parse(WINDOW.replace("# nor are these", "").replace("def unused() = true\n", "")) == pattern
    )
    assert attnlang.parse(WINDOW.replace("< reach", "<= reach")) != pattern
    assert attnlang.parse(WINDOW.replace("near_ones", "others")) != pattern
    assert pattern != WINDOW
    assert len({pattern, attnlang.parse(WINDOW), pattern.dense()}) == 2


def test_several_patterns_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "second.attn"
    file.write_text(
        "pattern first():\n    mask causal\npattern second():\n    mask k < q\n", encoding="utf-8"
    )
    assert attnlang.load(file).name == "second"  # named like the file
    assert attnlang.load(file, "first").name == "first"
    assert list(attnlang.load_all(str(file))) == ["first", "second"]
    other = file.rename(tmp_path / "other.attn")
    with pytest.raises(
        Diagnostics, match=r"has 2 patterns: first, second\n  name one of them: name='second'"
    ):
        attnlang.load(other)
    with pytest.raises(Diagnostics, match=r"has no pattern 'secnd'\n  did you mean 'second'\?"):
        attnlang.load(other, "secnd")
    other.write_text("def near(reach) = q - k < reach\n", encoding="utf-8")
    with pytest.raises(Diagnostics, match="has no pattern, only definitions"):
        attnlang.load(other)


def test_the_mistakes_of_all_patterns_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "many.attn"
    file.write_text(
        "def near(reach) = q - k < rech\n"
        "pattern first():\n    mask near(3) and hidden\n"
        "pattern second():\n    mask near(4)\n",
        encoding="utf-8",
    )
    with pytest.raises(Diagnostics) as caught:
        attnlang.load_all(file)
    names = [error.fields["name"] for error in caught.value.errors]
    assert sorted(set(names)) == ["hidden", "rech"] and len(names) == len(set(names))


def test_a_claim_brings_the_other_pattern_along() -> None:
    text = "pattern a():\n    mask k <= q\n\npattern c():\n    mask causal\n    assert equal(a)\n"
    pattern = attnlang.parse(text)
    assert pattern.name == "c"
    assert attnlang.parse(str(pattern)) == pattern


@pytest.mark.parametrize("path", ["missing.attn", ".", "empty.attn", "binary.attn"])
def test_files_that_cannot_be_loaded(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty.attn").write_bytes(b" \n")
    (tmp_path / "binary.attn").write_bytes(b"\x00\xff" * 100)
    with pytest.raises(Diagnostics) as caught:
        attnlang.load(tmp_path / path)
    assert [error.code[:2] for error in caught.value.errors] == ["E1"]


def test_all_mistakes_of_a_text_at_once() -> None:
    with pytest.raises(Diagnostics) as caught:
        attnlang.parse("pattern p():\n    mask widow\n    score Q[k] @ foo\n")
    assert len(caught.value.errors) >= 2


# ----------------------------------------------------------------------------------------------- calling


def test_a_call_is_what_the_text_says() -> None:
    q, k, v, slopes = inputs()
    pattern = attnlang.parse(WINDOW)
    out, lse, weights = by_hand(q, k, v, slopes, 3)
    found = pattern(q, k, v, reach=3, slopes=slopes, return_lse=True, return_weights=True)
    for got, wanted in zip(found, (out, lse, weights), strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(pattern(q, k, v, reach=3, slopes=slopes), out)
    pair = pattern(q, k, v, reach=3, slopes=slopes, return_weights=True)
    assert isinstance(pair, tuple) and len(pair) == 2
    torch.testing.assert_close(pair[1], weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_inputs_and_the_reference_float64(dtype: torch.dtype) -> None:
    q, k, v, slopes = inputs(dtype)
    pattern = attnlang.parse(WINDOW)
    exact = by_hand(q.double(), k.double(), v.double(), slopes.double(), 4)
    reference = pattern.reference(q, k, v, slopes=slopes, return_lse=True, return_weights=True)
    for got, wanted in zip(reference, exact, strict=True):
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    out = pattern(q, k, v, slopes=slopes)
    assert out.dtype == dtype
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(out.double(), exact[0], atol=tolerance, rtol=tolerance)


def test_eager_has_gradients() -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs(torch.float64)]
    pattern = attnlang.parse(WINDOW)
    pattern(*leaves[:3], slopes=leaves[3], target="eager").square().sum().backward()
    found = [leaf.grad for leaf in leaves]
    wanted = torch.autograd.grad(by_hand(*leaves, reach=4)[0].square().sum(), leaves)
    for got, expected in zip(found, wanted, strict=True):
        assert got is not None
        torch.testing.assert_close(got, expected)


def test_strides_do_not_matter() -> None:
    q, k, v, slopes = inputs()
    pattern = attnlang.parse(WINDOW)
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    torch.testing.assert_close(pattern(*turned, slopes=slopes), pattern(q, k, v, slopes=slopes))


def test_q_k_v_are_given_by_position() -> None:
    q, k, v, slopes = inputs()
    keywords: Any = partial(attnlang.parse(WINDOW), q, k)
    with pytest.raises(TypeError):
        keywords(v=v, slopes=slopes)


def test_unknown_and_unavailable_targets() -> None:
    q, k, v, slopes = inputs()
    pattern = attnlang.parse(WINDOW)
    expected = {"cuda:9": "E502", "egaer": "E502", "cuda:90": "E503", "hip:gfx942": "E503"}
    for target, code in expected.items():
        with pytest.raises(Diagnostic) as caught:
            pattern(q, k, v, slopes=slopes, target=target)
        assert caught.value.code == code
        assert caught.value.advice


def test_the_target_of_the_environment() -> None:
    q, k, v, slopes = inputs()
    with settings.override(target="cuda:90"), pytest.raises(Diagnostic, match="runs on a cuda:90 GPU"):
        attnlang.parse(WINDOW)(q, k, v, slopes=slopes)
    with settings.override(target="cuda:90"):
        attnlang.parse(WINDOW)(q, k, v, slopes=slopes, target="eager")


# ------------------------------------------------------------------------------------------ mask and dense


def test_the_mask() -> None:
    pattern = attnlang.parse(WINDOW)
    mask = pattern.mask(3, 5, heads=4, reach=2)
    assert (mask.dtype, mask.shape) == (torch.bool, (1, 1, 3, 5))
    assert mask[0, 0].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert pattern.mask(2, 5, reach=2, q_offset=0)[0, 0].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]


def test_a_mask_that_depends_on_batch_and_head() -> None:
    pattern = attnlang.parse("pattern p():\n    tensor ids[b, n]: int\n    mask ids[b, k] == h\n")
    mask = pattern.mask(2, 3, heads=2, batch=2, ids=torch.tensor([[0, 1, 0], [1, 1, 5]]))
    assert mask.shape == (2, 2, 2, 3)
    assert mask[:, :, 0].int().tolist() == [[[1, 0, 1], [0, 1, 0]], [[0, 0, 0], [1, 1, 0]]]


def test_dense_has_no_sparsity_and_no_claims() -> None:
    text = """\
pattern p(reach: int = 2):
    tensor hot[n]: bool
    mask causal
    blocks c of k by 4
    branch far over c:
        mask  c.last < q
        sparsity c.first == 0
        score 0
        value V[c.first]
    branch near:
        sparsity q - k < reach or hot[k]
    output far + near
    assert density <= 0.5 where NK = 64
"""
    dense = attnlang.parse(text).dense()
    assert "sparsity" not in str(dense) and "assert" not in str(dense)
    q, k, v, _ = inputs()
    same = attnlang.parse(text)(q, k, v, reach=100, hot=torch.ones(9, dtype=torch.bool))
    assert not torch.allclose(dense(q, k, v), same)  # the branch `far` sees more
    assert dense.mask(3, 3)[0, 0].tolist() == torch.ones(3, 3).tril().bool().tolist()
    assert dense.dense() == dense


# ------------------------------------------------------------------------------------------------- copies


def test_copies_and_pickles() -> None:
    q, k, v, slopes = inputs()
    pattern = attnlang.parse(WINDOW)
    for other in (copy.copy(pattern), copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert other == pattern
        torch.testing.assert_close(other(q, k, v, slopes=slopes), pattern(q, k, v, slopes=slopes))


def test_errors_can_be_pickled() -> None:
    with pytest.raises(Diagnostics) as caught:
        attnlang.parse(WINDOW)(*inputs()[:3], rech=3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_threads_may_share_a_pattern() -> None:
    q, k, v, slopes = inputs()
    pattern = pickle.loads(pickle.dumps(attnlang.parse(WINDOW)))  # its meaning is not known yet
    found: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: found.append(pattern(q, k, v, slopes=slopes))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(out, found[0]) for out in found)


def test_no_parameter_hides_an_argument_of_the_methods() -> None:
    taken: set[str] = set()
    for method in ("__call__", "reference", "mask", "plan", "compile"):
        parameters = inspect.signature(getattr(attnlang.Pattern, method)).parameters.values()
        taken |= {
            parameter.name
            for parameter in parameters
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }
    assert taken == RESERVED
    with pytest.raises(Diagnostics) as caught:
        attnlang.parse(
            "pattern p(target: int = 3, self: int = 1):\n    tensor heads[h]\n    score heads[h] * target * self\n"
        )
    assert [error.text for error in caught.value.errors] == [
        "'target' cannot be the name of a parameter: it is an argument of every pattern",
        "'self' cannot be the name of a parameter: it is an argument of every pattern",
        "'heads' cannot be the name of a tensor: it is an argument of every pattern",
    ]


# -------------------------------------------------------------------------------------------------- dumps


def test_dumps_are_numbered(tmp_path: Path) -> None:
    with settings.override(dump_directory=tmp_path / "stages"):
        attnlang.parse(WINDOW)
    folder = tmp_path / "stages" / "near_ones"
    assert sorted(path.name for path in folder.iterdir()) == [
        "1-source.attn",
        "2-syntax.attn",
        "3-pattern.txt",
    ]
    assert (folder / "1-source.attn").read_text(encoding="utf-8") == WINDOW
    assert (folder / "2-syntax.attn").read_text(encoding="utf-8") == str(attnlang.parse(WINDOW))
    assert "attention" in (folder / "3-pattern.txt").read_text(encoding="utf-8")


def test_dumps_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "near_ones").write_text("in the way")
    with settings.override(dump_directory=tmp_path), pytest.raises(CannotDump, match="ATTNLANG_DUMP: "):
        attnlang.parse(WINDOW)


def test_a_call_costs_little() -> None:
    q, k, v, slopes = inputs()
    pattern = attnlang.parse(WINDOW)
    pattern(q, k, v, slopes=slopes)
    times: list[float] = []
    for _ in range(20):
        begin = time.perf_counter()
        pattern._bind(q, k, v, None, None, {"slopes": slopes})  # pyright: ignore[reportPrivateUsage]
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.002
