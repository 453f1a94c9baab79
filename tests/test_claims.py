"""Claims: each kind proved, refuted and searched, counterexamples made again, and what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import attnlang
from attnlang import cli
from attnlang.call_interface import Interface
from attnlang.claims import Verdict, check_claim, search_claim
from attnlang.claims_cases import Search
from attnlang.errors import Diagnostics
from attnlang.ir.pattern import Claim

EXAMPLES = Path(__file__).parent.parent / "examples"


def verdicts(text: str, name: str | None = None) -> tuple[Verdict, ...]:
    """What the search says of the claims of a pattern."""
    return attnlang.parse(text, name).check()


def verdict(*lines: str, parameters: str = "") -> Verdict:
    """The verdict on the one claim of a pattern."""
    (found,) = verdicts(f"pattern test({parameters}):\n" + "".join(f"    {line}\n" for line in lines))
    return found


def search(*lines: str, parameters: str = "") -> Verdict:
    """What the search alone says of the one claim of a pattern."""
    text = f"pattern test({parameters}):\n" + "".join(f"    {line}\n" for line in lines)
    interface = Interface(attnlang.parse(text).ir)
    return search_claim(interface, interface.pattern.claims[0], None)


def claim_of_example(name: str, claim: Claim) -> Verdict:
    """The verdict on a claim about a pattern of examples/."""
    return check_claim(Interface(attnlang.load(EXAMPLES / f"{name}.attn").ir), claim, {})


# -------------------------------------------------------------------------------------------------- causal


CAUSAL = {
    "mask": ["mask causal"],
    "blocks that are over": [
        "blocks c of k by block",
        "let KC[c] = mean(K[k] for k in c)",
        "let VC[c] = mean(V[k] for k in c)",
        "branch coarse over c:",
        "    mask  c < block(q)",
        "    score Q[q] @ KC[c] * scale",
        "    value VC[c]",
        "output coarse",
    ],
    "a choice of blocks, the own one always": [
        "mask causal",
        "blocks c of k by block",
        "let KC[c] = mean(K[k] for k in c)",
        "select near[q] = top(1) c by Q[q] @ KC[c] where c < block(q)",
        "sparsity near(q, k) or block(q) == block(k)",
    ],
    "a tensor of tokens up to now": [
        "tensor gate[b, n]",
        "mask causal",
        "reweight gate[b, q] * gate[b, k] * w",
    ],
    "a table without a batch": ["tensor bias[h, n]", "mask causal", "score Q[q] @ K[k] * scale + bias[h, k]"],
    "a state": ["state S[d, e]", "step S = 0.5 * S + outer(K[k], V[k])", "output Q[q] @ S"],
    "documents": ["tensor ids[b, n]: int", "mask document(ids)"],
}

LEAKS = {
    "no mask": ([], "through K"),
    "one key ahead": (["mask k <= q + 1"], "through K"),
    "the values only": (["mask causal", "value V[min(k + 1, NK - 1)]"], "through V"),
    "a block that goes on": (
        [
            "blocks c of k by block",
            "let KC[c] = mean(K[k] for k in c)",
            "let VC[c] = mean(V[k] for k in c)",
            "branch coarse over c:",
            "    mask  c.first <= q",
            "    score Q[q] @ KC[c] * scale",
            "    value VC[c]",
            "output coarse",
        ],
        "through K",
    ),
    "a choice by keys to come": (
        [
            "mask causal",
            "blocks c of k by block",
            "let KC[c] = mean(K[k] for k in c)",
            "select near[q] = top(1) c by Q[q] @ KC[c] where c <= block(q)",
            "sparsity near(q, k)",
        ],
        "through K",
    ),
    "a choice of tokens by all tokens": (
        [
            "tensor router[b, h, n]",
            "select taken = top(2) n by router[b, h, n]",
            "mask causal",
            "sparsity taken(k)",
        ],
        "through router",
    ),
    "sums over queries": (["mask causal", "normalize exp(s) / sum(exp(s)) over q"], "through Q"),
    "a tensor of the next token": (
        ["tensor gate[b, n]", "mask causal", "reweight gate[b, min(q + 1, NK - 1)] * w"],
        "through gate",
    ),
    "a table of the next token": (
        ["tensor gate[h, n]", "mask causal", "reweight gate[h, min(q + 1, NK - 1)] * w"],
        "through gate",
    ),
    "the last key": (["mask causal", "score Q[q] @ K[k] * scale + K[NK - 1] @ K[k]"], "through K"),
    "the number in a document": (
        [
            "tensor ids[b, n]: int",
            "mask causal",
            "reweight w * count(ids[b, n] == ids[b, q] for n in positions)",
        ],
        "through ids",
    ),
}


@pytest.mark.parametrize("lines", CAUSAL.values(), ids=CAUSAL.keys())
def test_causal_holds(lines: list[str]) -> None:
    lines = [*lines, "assert causal"]
    found = verdict(*lines, parameters="block: int >= 1 = 4")
    assert (found.outcome, found.cases, found.counterexample) == ("proved", 0, None), str(found)
    tried = search(*lines, parameters="block: int >= 1 = 4")
    assert (tried.outcome, tried.counterexample) == ("searched", None), str(tried)
    assert tried.cases >= 40
    assert "(NQ ≤ 32, NK ≤ 32, H ≤ 4)" in tried.reason


@pytest.mark.parametrize(("lines", "route"), LEAKS.values(), ids=LEAKS.keys())
def test_causal_is_refuted(lines: list[str], route: str) -> None:
    found = verdict(*lines, "assert causal", parameters="block: int >= 1 = 4")
    assert found.outcome == "refuted", str(found)
    assert found.counterexample is not None
    assert route in found.counterexample.found
    assert found.counterexample.at["k"] > found.counterexample.at["q"] >= 0


def test_a_counterexample_is_a_call_that_can_be_made() -> None:
    pattern = attnlang.parse(
        "pattern ahead(reach: int >= 1 = 9):\n    mask k <= q + reach\n    assert causal\n"
    )
    (found,) = pattern.check()
    example = found.counterexample
    assert example is not None
    assert (example.sizes["NQ"], example.sizes["NK"], example.sizes["H"]) == (2, 2, 1)
    assert example.at == {"b": 0, "h": 0, "q": 0, "k": 1}
    tensors = dict(example.tensors)
    reach = example.parameters["reach"]
    before = pattern.reference(tensors["Q"], tensors["K"], tensors["V"], reach=reach)
    tensors["V"] = tensors["V"].clone()
    tensors["V"][..., 1, :] += 1
    after = pattern.reference(tensors["Q"], tensors["K"], tensors["V"], reach=reach)
    assert not torch.equal(before[:, :, 0], after[:, :, 0])


@pytest.mark.parametrize(
    "name", ["sliding_window", "native_sparse", "chunk_recurrent", "delta", "block_topk"]
)
def test_examples_that_are_causal(name: str) -> None:
    assert claim_of_example(name, Claim("causal")).outcome == "proved"


@pytest.mark.parametrize(
    ("name", "route"), [("shifted_groups", "K"), ("expert_choice", "router"), ("swin", "K")]
)
def test_examples_that_are_not(name: str, route: str) -> None:
    found = claim_of_example(name, Claim("causal"))
    assert found.outcome == "refuted"
    assert found.counterexample is not None
    assert f"through {route}" in found.counterexample.found


def test_later_queries_are_positions_of_the_keys() -> None:
    found = verdict("mask k <= q - (NK - NQ)", "assert causal")
    assert found.outcome == "proved", "fewer keys than the causal ones"
    ahead = verdict("mask k <= q + (NK - NQ)", "assert causal")
    assert ahead.counterexample is not None
    assert ahead.counterexample.sizes["NQ"] < ahead.counterexample.sizes["NK"]


# ------------------------------------------------------------------------------------ nonempty and rows


def test_nonempty() -> None:
    assert verdict("mask causal", "assert nonempty").outcome == "proved"
    found = verdict("mask k < q", "assert nonempty").counterexample
    assert found is not None
    assert found.found == "q = 0 sees no key"
    assert found.at == {"b": 0, "h": 0, "q": 0}


def test_nonempty_shows_the_tensors_that_decide() -> None:
    found = verdict(
        "tensor open[b, n]: bool", "mask causal", "sparsity open[b, k]", "assert nonempty"
    ).counterexample
    assert found is not None
    assert found.call == "NQ = 1, NK = 1, H = 1; open = [false]; at b = 0, h = 0, q = 0"


def test_nonempty_of_several_attentions_is_of_their_union() -> None:
    lines = ["branch near:", "    mask k == q", "branch far:", "    mask k < q - 2", "output near + far"]
    assert verdict(*lines, "assert nonempty").outcome == "proved"
    assert verdict(*lines[2:4], "output far", "assert nonempty").outcome == "refuted"


def test_rows() -> None:
    assert (
        verdict("mask window(size)", "assert rows <= size", parameters="size: int >= 1").outcome == "proved"
    )
    found = verdict(
        "mask window(size + 1)", "assert rows <= size", parameters="size: int >= 1"
    ).counterexample
    assert found is not None
    assert found.found == "q = 1 sees 2 of the keys, which is not ≤ 1"
    assert found.call == "NQ = 1, NK = 2, H = 1, size = 1; at b = 0, h = 0, q = 1"


def test_rows_of_a_choice() -> None:
    lines = ["select near[q] = top(keep) k by Q[q] @ K[k] where k <= q", "sparsity near(q, k)"]
    assert verdict(*lines, "assert rows <= keep", parameters="keep: int >= 1 = 4").outcome == "proved"
    assert verdict(*lines, "assert rows < keep", parameters="keep: int >= 1 = 4").outcome == "refuted"


def test_rows_with_an_index_of_their_own_are_seen_together() -> None:
    lines = [
        "branch part[c in 2, q]:",
        "    mask k <= q and k mod 2 == c",
        "output sum(part[c, q] for c in 2)",
    ]
    assert verdict(*lines, "assert rows <= NK").outcome == "proved"
    assert verdict(*lines, "assert rows <= (NK + 1) // 2").outcome == "refuted"


def test_rows_are_of_keys() -> None:
    lines = [
        "blocks c of k by 2",
        "branch coarse over c:",
        "    score 0.0",
        "    value V[c.first]",
        "output coarse",
    ]
    assert verdict(*lines, "assert nonempty").outcome == "proved"
    with pytest.raises(Diagnostics) as caught:
        verdict(*lines, "assert rows <= 2")
    assert "no attention over the keys enters its output" in str(caught.value)


# ------------------------------------------------------------------------------------------------- density


def test_density_at_a_size_is_exact() -> None:
    within = verdict("mask causal", "assert density <= 0.50001 where NK = 65536")
    assert within.outcome == "proved"
    assert "the density is 0.500008" in within.reason
    above = verdict("mask causal", "assert density <= 0.5 where NK = 65536").counterexample
    assert above is not None
    assert above.found == "the density is 0.500008, which is not ≤ 0.5"


def test_density_from_ranges_that_go_up_and_down_is_exact() -> None:
    """The window stops at the borders: its bounds as functions of q have no direction."""
    lines = ["require NK == length", "mask neighborhood(q, k, length, 5, 3)"]
    for claim, outcome in (("<=", "proved"), (">=", "proved"), ("<", "refuted")):
        found = verdict(
            *lines, f"assert density {claim} 5 / 80 where NK = 80, length = 80", parameters="length: int >= 5"
        )
        assert found.outcome == outcome
        assert "closed-form" in found.reason or outcome == "refuted"


def test_density_of_few_pairs_is_counted_one_by_one() -> None:
    lines = ["mask (q * q + k) mod 3 == 0"]
    assert verdict(*lines, "assert density <= 0.34 where NK = 300").outcome == "proved"
    assert verdict(*lines, "assert density < 0.3 where NK = 300").outcome == "refuted"


def test_density_that_is_too_much_to_count_follows_from_its_rows() -> None:
    found = verdict("mask (q * q + k) mod 3 == 0", "assert density <= 0.34 where NK = 65536")
    assert (found.outcome, found.cases) == ("proved", 0)
    assert found.reason == "each query sees only NK of them, every 3-th of them"


def test_density_that_cannot_be_counted_is_undecided() -> None:
    found = verdict("mask (q * q + k * k) mod 3 == 0", "assert density <= 0.34 where NK = 65536")
    assert (found.outcome, found.cases) == ("undecided", 0)
    assert "4,294,967,296 pairs are too many" in found.reason


def test_density_takes_the_defaults_and_what_the_claim_gives() -> None:
    lines = ["mask window(size)"]
    at_default = verdict(*lines, "assert density <= 0.01 where NK = 4096", parameters="size: int >= 1 = 16")
    assert at_default.outcome == "proved"
    given = "assert density <= 0.01 where NK = 4096, size = 64"
    assert verdict(*lines, given, parameters="size: int >= 1 = 16").outcome == "refuted"


def test_density_differs_between_heads() -> None:
    lines = ["mask k <= q if h < H // 2 else k == q"]
    assert verdict(*lines, "assert density <= 0.3 where NK = 512, H = 2").outcome == "proved"
    assert verdict(*lines, "assert density <= 0.2 where NK = 512, H = 2").outcome == "refuted"


def test_density_without_a_size_is_of_small_calls() -> None:
    assert verdict("mask causal", "assert density <= 1").outcome == "proved"
    assert verdict("mask causal", "assert density <= 0.6").outcome == "refuted"


# --------------------------------------------------------------------------------------------------- equal


TWO = """
pattern one(size: int >= 1 = 4):
    mask causal
    sparsity window(size)
    assert equal(two)

pattern two(size: int >= 1 = 4):
    mask {mask}
"""


def test_equal() -> None:
    (proved,) = verdicts(TWO.format(mask="0 <= q - k < size"), "one")
    assert (proved.outcome, proved.cases) == ("proved", 0)
    (refuted,) = verdicts(TWO.format(mask="0 <= q - k <= size"), "one")
    assert refuted.counterexample is not None
    assert refuted.counterexample.at == {"b": 0, "h": 0, "q": 1}
    assert "that of 'two' is" in refuted.counterexample.found


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (
            "tensor x[b, n]\n    value x[b, k] * V[k]",
            "mask causal",
            "'one' has a tensor 'x', and 'two' has none",
        ),
        (
            "mask causal",
            "tensor x[b, n]\n    value x[b, k] * V[k]",
            "'two' has a tensor 'x', and 'one' has none",
        ),
        (
            "tensor x[b, n]\n    value x[b, k] * V[k]",
            "tensor x[h, n]\n    value x[h, k] * V[k]",
            "the tensor 'x' is [b, n]: float in 'one' and [h, n]: float in 'two'",
        ),
    ],
)
def test_equal_needs_one_interface(first: str, second: str, reason: str) -> None:
    text = f"pattern one():\n    {first}\n    assert equal(two)\n\npattern two():\n    {second}\n"
    with pytest.raises(Diagnostics) as caught:
        verdicts(text, "one")
    (mistake,) = caught.value.errors
    assert (mistake.code, mistake.text) == ("E271", f"'assert equal(two)' cannot be asked of 'one': {reason}")


# ------------------------------------------------------------------------------------------ what is searched


def test_the_search_is_the_same_every_time() -> None:
    text = "pattern test(size: int >= 1 = 4):\n    mask window(size)\n    assert causal\n    assert rows < size\n"
    first, second = verdicts(text), verdicts(text)
    assert [str(one) for one in first] == [str(two) for two in second]


def test_every_small_length_is_searched() -> None:
    pattern = attnlang.parse("pattern test():\n    mask causal\n")
    cases = Search(Interface(pattern.ir), {}, inside=True).cases()
    lengths = {(case.sizes["NQ"], case.sizes["NK"]) for case in cases}
    assert {(queries, keys) for keys in range(1, 9) for queries in range(1, keys + 1)} <= lengths
    assert {case.sizes["NK"] for case in cases} == {*range(1, 13), 17, 32}
    assert {(case.sizes["H"], case.sizes["HK"]) for case in cases} >= {(1, 1), (4, 2), (4, 1), (3, 3)}
    assert any(case.q_offset < case.sizes["NK"] - case.sizes["NQ"] for case in cases)


def test_grids_meet_their_requirements() -> None:
    pattern = attnlang.load(EXAMPLES / "neighborhood_2d.attn")
    cases = Search(Interface(pattern.ir), {}, inside=True).cases()
    extents = {(case.parameters["height"], case.parameters["width"]) for case in cases}
    assert len(extents) >= 10
    assert all(case.sizes["NK"] == case.parameters["height"] * case.parameters["width"] for case in cases)


def test_where_fixes_what_is_searched() -> None:
    lines = ["mask k <= q + ahead"]
    assert (
        verdict(*lines, "assert causal where ahead = 0", parameters="ahead: int >= 0 = 0").outcome == "proved"
    )
    found = verdict(
        *lines, "assert causal where NK = 20, ahead = 2", parameters="ahead: int >= 0 = 0"
    ).counterexample
    assert found is not None
    assert (found.sizes["NK"], found.parameters) == (20, {"ahead": 2})


def test_one_query_of_many_keys_is_searched() -> None:
    found = search("mask causal", "assert causal where NQ = 1")
    assert (found.outcome, "(NQ ≤ 1, NK ≤ 32" in found.reason) == ("searched", True)
    ahead = verdict("mask k <= q or k == 9", "assert causal where NQ = 1").counterexample
    assert ahead is not None
    assert (ahead.sizes["NQ"], ahead.at["k"]) == (1, 9)


@pytest.mark.parametrize(
    ("where", "reason"),
    [("NK = 0", "every size is at least 1"), ("NK = 9, size = 0", "'test': 'size' must be ≥ 1, this is 0")],
)
def test_a_density_needs_a_call_that_exists(where: str, reason: str) -> None:
    with pytest.raises(Diagnostics) as caught:
        verdict("mask window(size)", f"assert density <= 1 where {where}", parameters="size: int >= 1 = 4")
    (mistake,) = caught.value.errors
    assert mistake.text.endswith(f"cannot be asked of 'test': {reason}")


def test_what_is_too_large_to_search_is_proved_or_undecided() -> None:
    claims = ("assert causal where NK = 65536", "assert nonempty where NK = 65536")
    assert verdict("mask causal", claims[0]).outcome == "proved"
    found = verdict("mask (q * q + k) mod 5 == 0", claims[1])
    assert (found.outcome, "16,384 pairs" in found.reason) == ("undecided", True)


def test_a_claim_on_no_call_is_undecided() -> None:
    for lines in (["assert causal where NK = 0"], ["require NK < 0", "assert causal"]):
        found = verdict("mask causal", *lines)
        assert (found.outcome, found.cases) == ("undecided", 0)


def test_a_pattern_without_keys_has_no_rows() -> None:
    with pytest.raises(Diagnostics) as caught:
        verdict("state S[d, e]", "step S = S + outer(K[k], V[k])", "output Q[q] @ S", "assert nonempty")
    assert "no attention of queries enters its output" in str(caught.value)


# ---------------------------------------------------------------------------------------------- the command


def test_check_reports_what_is_refuted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ahead.attn"
    file.write_text(
        "pattern ahead():\n    mask k <= q + 1\n    assert nonempty\n    assert rows <= 2 where NK = 2\n"
    )
    assert cli.main(["check", str(file)]) == 0
    told = "assert rows <= 2 where NK = 2: proved: each query sees at most 2 keys: there are NK of them\n"
    assert told in capsys.readouterr().out
    file.write_text("pattern ahead():\n    mask k < q\n    assert nonempty\n")
    assert cli.main(["check", str(file)]) == 1
    assert capsys.readouterr().err == (
        f"{file}:3:5: error[E270]: 'assert nonempty' does not hold for 'ahead': q = 0 sees no key\n"
        "    |\n"
        "  3 |     assert nonempty\n"
        "    |     ^^^^^^^^^^^^^^^ NQ = 1, NK = 1, H = 1; at b = 0, h = 0, q = 0\n"
        "1 mistake in 1 file\n"
    )


def test_check_says_what_holds_beside_what_is_refuted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ahead.attn"
    file.write_text("pattern ahead():\n    mask k < q\n    assert causal\n    assert nonempty\n")
    assert cli.main(["check", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == f"  {file}:3:5: ahead: assert causal: proved: every key that is visible has k <= q\n"
    assert "'assert nonempty' does not hold for 'ahead': q = 0 sees no key" in told.err


def test_check_gives_editors_the_counterexample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ahead.attn"
    file.write_text("pattern ahead():\n    mask k < q\n    assert causal\n    assert nonempty\n")
    assert cli.main(["check", "--json", str(file)]) == 1
    (found,) = json.loads(capsys.readouterr().out)["files"]
    proved, refuted = found["patterns"][0]["claims"]
    assert (proved["outcome"], proved["counterexample"]) == ("proved", None)
    assert refuted["counterexample"]["at"] == {"b": 0, "h": 0, "q": 0}
    assert [error["code"] for error in found["errors"]] == ["E270"]
