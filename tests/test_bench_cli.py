"""`attnlang bench`: what it prints, and that a mistake is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.nn.attention.flex_attention import flex_attention

from attnlang import bench_rivals, cli_bench
from tests.command_line import Run, runner

SMALL = ("-n", "32", "--heads", "2", "--head-dim", "16", "--seconds", "0.01", "--target", "eager")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command inside a folder of its own; FlexAttention is not compiled."""
    monkeypatch.setattr(bench_rivals, "compiled_flex", lambda: flex_attention)
    return runner(capsys, tmp_path, monkeypatch)


def test_the_table_and_what_runs(run: Run) -> None:
    done = run("bench", "near.attn", *SMALL)
    assert (done.code, done.err) == (0, "")
    assert "near(window=8), forward: 2 heads, 32 queries × 32 keys × 16, fp32" in done.out
    assert "sdpa is scaled_dot_product_attention with a dense mask [1, 1, 32, 32]" in done.out
    assert "flex is torch.compile(flex_attention) with block_mask" in done.out
    assert "eager takes no part: it is what attnlang itself runs here" in done.out
    assert "which are 22.27% of all" in done.out  # 228 of 1024 pairs


def test_json_for_programs(run: Run) -> None:
    found = run("bench", "near.attn", *SMALL, "--against", "flex,sdpa", "-p", "window=4", "--json").json
    assert (found["ok"], found["pattern"], found["parameters"]) == (True, "near", {"window": 4})
    assert [entry["name"] for entry in found["entries"]] == ["attnlang", "sdpa", "flex"]
    assert found["density"] == pytest.approx((32 * 4 - 6) / 32**2)
    for entry in found["entries"]:
        assert 0 < entry["least_ms"] <= entry["median_ms"] and entry["runs"] >= 3
        assert 0 < entry["max_abs_error"] < 1e-5
        work = 4 * 122 * 2 * 16
        assert entry["gflops"] == pytest.approx(work / entry["median_ms"] / 1e6)


def test_the_backward_pass(run: Run) -> None:
    found = run("bench", "near.attn", *SMALL, "--backward", "--json").json
    assert found["pass"] == "backward"
    assert {each["name"]: each["reason"] for each in found["absent"]}["flex"].endswith("on the CPU")
    assert all(0 < entry["max_abs_error"] < 1e-4 for entry in found["entries"])


def test_a_pattern_without_a_kernel_here_runs_as_dense_pytorch_and_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_bench, "place_of", lambda target: (target or "interpret", "cpu"))
    (tmp_path / "other.attn").write_text("pattern other():\n    normalize sigmoid(s)\n")
    sizes = SMALL[:-2]
    done = run("bench", "other.attn", *sizes)
    assert done.code == 0
    assert "note: pattern 'other' has no kernel on interpret yet" in done.err
    assert "sdpa takes no part: its normalizer is not softmax" in done.out
    named = run("bench", "other.attn", *sizes, "--target", "interpret")
    assert named.code == 1 and "error[E401]" in named.err


def test_errors_are_left_out_where_the_definition_has_too_many_pairs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_bench, "MOST_PAIRS", 2 * 32 * 32 - 1)
    done = run("bench", "near.attn", *SMALL, "--against", "sdpa")
    assert done.code == 0 and "no errors: too many pairs" in done.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("near.attn", "--against", "spda"), 2, "there is no rival 'spda'; did you mean 'sdpa'?"),
        (("near.attn", "--against", "triton"), 2, "there is no rival 'triton'; there are sdpa, flex, eager"),
        (("near.attn", "--against", ","), 2, "',' names no rival (as in sdpa,flex,eager)"),
        (("near.attn", "--seconds", "soon"), 2, "'soon' is no number of seconds"),
        (("near.attn", "--seconds", "0"), 2, "'0' is no number of seconds"),
        (("near.attn", "--seconds", "nan"), 2, "'nan' is no number of seconds"),
        (("near.attn", "--heads", "4", "--kv-heads", "3"), 2, "--heads 4 is no multiple of --kv-heads 3"),
        (("near.attn", "-p", "widow=3"), 1, "did you mean 'window'?"),
        (("near.attn", "-p", "window=0"), 1, "'window' must be"),
        (("near.attn", "--target", "cuda"), 1, "there is no target 'cuda'"),
        (("wrong.attn",), 1, "error["),
        (("none.attn",), 1, "there is no file 'none.attn'"),
    ],
)
def test_mistakes_are_told_in_words(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    done = run("bench", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_the_help_has_an_example(run: Run) -> None:
    done = run("bench", "--help")
    assert "attnlang bench window.attn -n 4096 --against sdpa,flex -p window=512" in done.out
