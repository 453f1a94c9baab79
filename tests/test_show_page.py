"""The page with sliders: its predicates give what the reference gives, in Node.js; its controls work; its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attnlang
from attnlang import AttnlangError, parse
from attnlang.call import Binding
from attnlang.ir.interpret import Inputs, table
from attnlang.ir.pattern import Pattern
from attnlang.show_colours import tile_counts
from attnlang.show_page import page_of
from attnlang.show_seen import branches_of, is_chosen, seen_pairs
from tests.catalogue import call, example
from tests.command_line import Run, runner
from tests.definitions import DEFINITIONS, cases
from tests.show_node import looked, page_after, script_of
from tests.test_classify_random import CALLS, HEADER, Call, tensors

IN_A_PAGE = [
    name
    for name in DEFINITIONS
    if any(isinstance(stage.name, str) for stage in example(name).stages)
    and not any(is_chosen(example(name), branch) for branch in branches_of(example(name)))
]


def binding_of(inputs: Inputs) -> Binding:
    """The call without its queries, keys and values."""
    numbers = {name: value for name, value in inputs.scalars.items() if name not in ("q_offset", "scale")}
    offset, scale = int(inputs.scalars["q_offset"]), float(inputs.scalars["scale"])
    return Binding(inputs.sizes, numbers, offset, scale, inputs.tensors)


def checked(
    pattern: Pattern, inputs: Inputs, tile: int
) -> tuple[str, list[dict[str, Any]], list[np.ndarray]]:
    """A page, the calls to make of it, and what the interpreter says each of them sees."""
    branches = branches_of(pattern)
    page = page_of(pattern, branches, binding_of(inputs), text="", all_needed=True).text
    numbers = {**inputs.sizes, **inputs.scalars}
    calls: list[dict[str, Any]] = []
    masks: list[np.ndarray] = []
    for branch in branches:
        for batch in range(inputs.sizes["B"]):
            for head, mask in enumerate(seen_pairs(pattern, branch, inputs, batch)):
                name = branch.attention.name
                calls.append({"numbers": numbers, "branch": name, "batch": batch, "head": head, "tile": tile})
                masks.append(mask)
    return page, calls, masks


def compare(jobs: list[tuple[str, list[dict[str, Any]], list[np.ndarray]]]) -> None:
    """Fails where a page sees anything else than the interpreter, or counts other tiles."""
    found = looked([(page, calls) for page, calls, _ in jobs])
    for (_, calls, masks), answers in zip(jobs, found, strict=True):
        for made, mask, answer in zip(calls, masks, answers, strict=True):
            assert answer["broken"] == []
            assert answer["mask"].tolist() == mask.tolist(), made
            counts = tile_counts(mask, made["tile"])
            assert answer["counts"] == [counts.empty, counts.partial, counts.full]
            assert answer["pairs"] == int(mask.sum())


@pytest.mark.parametrize("name", IN_A_PAGE)
def test_what_the_page_sees_is_what_the_pattern_means(name: str) -> None:
    jobs = [checked(example(name), call(case, case.make_inputs(0)), 5) for case in cases(name)]
    compare(jobs)


def test_most_of_the_catalogue_has_a_page() -> None:
    assert len(IN_A_PAGE) > 60


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(CALLS, min_size=12, max_size=12))
def test_random_predicates(calls: list[Call]) -> None:
    """Whole numbers, fractions, sums, tensors and heads, twelve predicates a run of Node.js."""
    jobs = [job for each in calls if (job := random_job(each)) is not None]
    compare(jobs)


def random_job(each: Call) -> tuple[str, list[dict[str, Any]], list[np.ndarray]] | None:
    """A random predicate and its call; None where the language refuses it."""
    try:
        pattern = parse(f"{HEADER}    sparsity used and {each.text}\n", "p").ir
    except AttnlangError:
        return None
    keys = each.queries + each.more
    a, c, fraction, even = each.numbers
    made = {name: torch.from_numpy(array) for name, array in tensors(keys, 3, each.seed).items()}
    sizes = {"B": 2, "H": 3, "HK": 3, "NQ": each.queries, "NK": keys, "D": 4, "DV": 4}
    scalars = {"q_offset": each.more, "scale": 0.5, "a": a, "c": c, "f": fraction, "if_even": even}
    return checked(pattern, Inputs(None, None, None, sizes, scalars, made), 6)


# ------------------------------------------------------------------------------------------ operations one by one

OPERATIONS = (
    "floor(x[k])", "ceil(x[k])", "round(x[k])", "int(x[k])", "x[k] // 0.75", "x[k] mod 0.75", "x[k] // (-0.75)",
    "x[k] mod (-0.75)", "(k - 9) // 4", "(k - 9) mod 4", "(k - 9) // (-4)", "(k - 9) mod (-4)", "abs(x[k])",
    "sign(x[k])", "exp(x[k])", "exp2(x[k])", "expm1(x[k])", "log1p(abs(x[k]))", "log2(abs(x[k]))", "log(abs(x[k]))",
    "sqrt(abs(x[k]))", "sin(x[k])", "cos(x[k])", "tanh(x[k])", "sigmoid(x[k])", "softplus(x[k])", "x[k] ** 2",
    "(-3) ** (k mod 9)", "3 ** (k - 9)", "2.5 ** x[k]", "min(x[k], 0.25)", "max(x[k], k - 9)", "x[k] / 3",
    "x[k] if x[k] > 0 else k", "mean(x[e] for e in 19 if e <= k)", "max(x[e] for e in 19 if e < k)",
    "min(e * (k - 9) for e in 4 if e > k)", "prod(x[e] + k for e in 3)",
    "sum(sum(x[e] * t[f] for f in 4) * k for e in 3)",
    "logsumexp(x[e] for e in 19 if e < k)", "x[k + 5]", "x[k - 5]", "t[t[k]]",
)  # fmt: skip


@pytest.mark.parametrize("text", OPERATIONS)
def test_an_operation_gives_the_same_number(text: str) -> None:
    """Compared with thresholds around every value that the reference gives."""
    header = "pattern p():\n    tensor x[19]\n    tensor t[19]: int\n    tensor edge[57]\n    tensor kept[1]: int\n"
    value = parse(
        header + f"    let y[k] = ({text}) + 0 * (x[0] + t[0] + edge[0] + kept[0])\n    score y[k]\n", "p"
    ).ir
    x = torch.linspace(-2.25, 2.25, 19, dtype=torch.float64)
    t = torch.arange(19).flip(0) - 3
    sizes = {"B": 1, "H": 1, "HK": 1, "NQ": 57, "NK": 19, "D": 4, "DV": 4}
    scalars = {"q_offset": 0, "scale": 1.0}
    zeros = {"x": x, "t": t, "edge": torch.zeros(57), "kept": torch.zeros(1, dtype=torch.int64)}
    given = Inputs(None, None, torch.zeros(1, 1, 19, 4), sizes, scalars, zeros)
    numbers = table(value, "y", given).reshape(-1).to(torch.float64)
    assert len(set(numbers.tolist())) > 1
    bits = 1e-9 * numbers.abs().clamp(min=1.0)
    edge = torch.cat([numbers - bits, numbers + bits, numbers.nan_to_num(0.0, 0.0, 0.0) * 0.4871])
    body = f"    let y[k] = ({text}) + 0 * (x[0] + t[0] + kept[0])\n    mask y[k] <= edge[q]\n"
    pattern = parse(header + body, "p").ir
    tensors = {"x": x, "t": t, "edge": edge, "kept": torch.zeros(1, dtype=torch.int64)}
    compare([checked(pattern, Inputs(None, None, None, sizes, scalars, tensors), 7)])


# --------------------------------------------------------------------------------------------------- the page itself


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`attnlang …` in a folder with near.attn."""
    return runner(capsys, tmp_path, monkeypatch)


def page(run: Run, folder: Path, text: str, *words: str) -> str:
    """The page of a pattern."""
    (folder / "mine.attn").write_text(text)
    done = run("show", "mine.attn", "--html", "page.html", *words)
    assert (done.code, done.err) == (0, "")
    return (folder / "page.html").read_text(encoding="utf-8")


WINDOW = """pattern near(window: int >= 1 = 8, wide: bool = false):
    mask causal
    sparsity wide or window(window)
"""


def test_sliders_number_fields_and_boxes_change_what_is_seen(run: Run, tmp_path: Path) -> None:
    text = page(run, tmp_path, WINDOW, "-n", "64", "--tiles", "16")
    told = "const told = () => [elements.pairs.textContent, elements.full.textContent, elements.size.textContent];"
    actions = (
        told
        + """
      const all = [told()], [number, slider] = label("window"), [box] = label("wide");
      slider.value = 20; slider.oninput(); all.push([...told(), number.value]);
      number.value = "40"; number.oninput(); all.push([...told(), slider.value, slider.max]);
      number.value = "0"; number.onchange(); all.push([...told(), number.value]);
      box.checked = true; box.oninput(); all.push(told());
      const [tokens] = label("N (queries, keys)"), [tile] = label("tile");
      tokens.value = "100"; tokens.oninput(); tile.value = "32"; tile.oninput(); all.push(told());
      return all;
    """
    )
    pattern = parse(WINDOW)

    def seen(length: int, tile: int, **numbers: int | bool) -> list[str]:
        mask = pattern.mask(length, length, **numbers)[0, 0].numpy()
        size = f"{length} × {length} pairs, tiles of {tile} × {tile}"
        return [f"{int(mask.sum()):,}", str(tile_counts(mask, tile).full), size]

    assert page_after(text, actions) == [
        seen(64, 16, window=8),
        [*seen(64, 16, window=20), 20],
        [*seen(64, 16, window=40), 40, 40],
        [*seen(64, 16, window=1), 1],  # no smaller than it is declared
        seen(64, 16, wide=True),
        seen(100, 32, wide=True),
    ]


def test_the_pair_under_the_mouse(run: Run, tmp_path: Path) -> None:
    text = page(run, tmp_path, WINDOW, "-n", "64", "--tiles", "16")
    actions = """
      const side = (600 - LEFT - 8) / 64, told = [];
      for (const [q, k] of [[40, 33], [40, 32], [40, 41], [63, 0]]) {
        elements.mask.onpointermove({clientX: LEFT + (k + 0.5) * side, clientY: 8 + (q + 0.5) * side});
        told.push(elements.tip.textContent);
      }
      elements.mask.onpointermove({clientX: 3, clientY: 3});
      return [...told, elements.tip.style.visibility];
    """
    assert page_after(text, actions) == [
        "q = 40 sees k = 33 · partial tile",
        "q = 40 does not see k = 32 · partial tile",
        "q = 40 does not see k = 41 · partial tile",
        "q = 63 does not see k = 0 · empty tile",
        "hidden",
    ]


def test_the_length_follows_from_a_grid_and_requirements_are_told(run: Run, tmp_path: Path) -> None:
    grid = (
        "pattern p(height: int >= 1 = 8, width: int >= 1 = 8, radius: int >= 0 = 2):\n"
        "    grid q, k as (y: height, x: width)\n    require radius < width\n"
        "    sparsity abs(q.x - k.x) <= radius and q.y == k.y\n"
    )
    actions = """
      const [height] = label("height"), [radius] = label("radius");
      height.value = "5"; height.oninput();
      const told = [elements.size.textContent, elements.pairs.textContent, elements.wrong.textContent];
      radius.value = "9"; radius.oninput();
      const names = elements.controls.children.map(each => each.children[0].textContent);
      return [...told, elements.wrong.textContent, names];
    """
    found = page_after(page(run, tmp_path, grid, "-n", "64"), actions)
    assert found == [
        "40 × 40 pairs, tiles of 64 × 64", str(5 * (8 * 5 - 6)), "", "required: radius < width",
        ["height", "width", "radius", "tile"],
    ]  # fmt: skip


def test_branches_are_chosen_and_those_that_a_choice_decides_are_left_out(run: Run, tmp_path: Path) -> None:
    text = (
        "pattern two(block: int >= 1 = 8):\n    blocks c of k by block\n    let KC[c] = mean(K[k] for k in c)\n"
        "    let VC[c] = mean(V[k] for k in c)\n"
        "    branch coarse over c:\n        mask c < block(q)\n        score Q[q] @ KC[c]\n        value VC[c]\n"
        "    select best[q] = top(2) k by Q[q] @ K[k]\n    branch fine:\n        sparsity best(q, k)\n"
        "    branch near:\n        sparsity q == k\n    output coarse + fine + near\n"
    )
    (tmp_path / "mine.attn").write_text(text)
    done = run("show", "mine.attn", "--html", "page.html", "-n", "32", "--tiles", "8")
    assert done.out == "'fine' is not in the page: 'best' is chosen by a score (select)\npage.html\n"
    actions = """
      const [select] = label("attention"), told = [select.children.map(each => each.textContent)];
      told.push(elements.size.textContent, elements.pairs.textContent);
      select.value = "1"; select.oninput();
      return [...told, elements.size.textContent, elements.pairs.textContent, elements.notes.textContent];
    """
    found = page_after((tmp_path / "page.html").read_text(encoding="utf-8"), actions)
    assert found == [
        ["coarse", "near"], "32 × 4 pairs, tiles of 8 × 8", str(8 * (0 + 1 + 2 + 3)),
        "32 × 32 pairs, tiles of 8 × 8", "32", "'fine' is not in the page: 'best' is chosen by a score (select)",
    ]  # fmt: skip
    asked = run("show", "mine.attn", "--html", "page.html", "-n", "32", "--branch", "fine")
    assert asked.code == 1
    assert "error[E610]: a page cannot show 'two': 'best' is chosen by a score (select)" in asked.err


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sparsity erf(k / 8) < 0.5", "'erf' has no counterpart in JavaScript"),
        ("sparsity Q[q] @ K[k] > 0", "it reads Q, the queries of a call"),
        (
            "select top2[q] = top(2) k by Q[q] @ K[k]\n    sparsity top2(q, k)",
            "'top2' is chosen by a score (select)",
        ),
    ],
)
def test_what_a_page_cannot_show_is_named(run: Run, tmp_path: Path, body: str, reason: str) -> None:
    (tmp_path / "mine.attn").write_text(f"pattern p():\n    {body}\n")
    done = run("show", "mine.attn", "--html", "page.html")
    assert done.code == 1
    assert f"error[E610]: a page cannot show 'p': {reason}" in done.err
    assert not (tmp_path / "page.html").exists()


def test_a_tensor_that_is_too_large_for_a_page(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.attn").write_text(
        "pattern p():\n    tensor open[q, k]: bool\n    sparsity open[q, k]\n"
    )
    done = run("show", "mine.attn", "--html", "page.html", "-n", "1024")
    assert done.code == 1
    assert "'open' has 1,048,576 elements, more than the 262,144 that a page can hold" in done.err


def test_a_page_is_one_file_the_same_twice_and_safe_from_its_text(run: Run, tmp_path: Path) -> None:
    text = '# </script><script>alert(1)</script>\npattern near():\n    "</script> & <b>"\n    mask causal\n'
    first = page(run, tmp_path, text, "-n", "16")
    assert first == page(run, tmp_path, text, "-n", "16")
    assert first.count("</script>") == 2 and "alert(1)" not in first
    assert not any(word in first for word in ("http:", "https:", "src=", "@import", "url("))
    assert page_after(first, "return elements.text.textContent") == str(attnlang.parse(text)).strip()


def test_lengths_that_tensors_bound(run: Run, tmp_path: Path) -> None:
    text = page(
        run, tmp_path, "pattern p():\n    tensor ids[b, n]: int\n    mask document(ids)\n", "-n", "48"
    )
    actions = """
      const [tokens] = label("N (queries, keys)");
      tokens.value = "99"; tokens.onchange();
      return [tokens.value, elements.size.textContent, elements.notes.textContent];
    """
    size = "48 × 48 pairs, tiles of 64 × 64"
    assert page_after(text, actions) == [48, size, "The tensor ids holds random values."]


def test_a_tensor_that_would_have_to_be_longer_is_told(run: Run, tmp_path: Path) -> None:
    text = (
        "pattern p(block: int >= 1 = 8):\n    tensor open[NK // block]: bool\n"
        "    sparsity open[k // block] or k == 0\n"
    )
    actions = """
      const [block] = label("block"), told = [elements.wrong.textContent];
      block.value = "4"; block.oninput();
      return [...told, elements.wrong.textContent];
    """
    found = page_after(page(run, tmp_path, text, "-n", "48"), actions)
    assert found == ["", "'open' holds 6 values in this page, 12 are needed"]


def test_the_colours_are_those_of_the_pictures(run: Run, tmp_path: Path) -> None:
    from attnlang.show_colours import COLOURS

    style = page(run, tmp_path, WINDOW, "-n", "16").split("@media")[0]
    for name, row in (("empty", 0), ("hidden", 2), ("visible", 3), ("full", 5)):
        assert f"--{name}: {COLOURS[row]};" in style
    assert "const spec" in script_of(page(run, tmp_path, WINDOW, "-n", "16"), "model")
