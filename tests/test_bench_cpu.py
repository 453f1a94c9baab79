"""The CPU benchmark: its rivals compute what attnlang computes, its verdicts are right, and it runs at tiny sizes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cpp_kernels import needs_compiler
from torch.nn.attention.flex_attention import flex_attention

from attnlang.bench_rivals import Ready
from attnlang.settings import override
from benchmarks import cpu, cpu_bars, cpu_cases, cpu_first, cpu_load, cpu_overhead, cpu_page, cpu_passes
from benchmarks.cpu_cases import CASES, inputs

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
TOKENS, HEADS = 1024, 2  # a square, and longer than the window
SMALL = cpu_passes.Setting(target="eager", heads=HEADS, seconds=0.01, most=3, rivals=("sdpa", "eager"))


@pytest.fixture(autouse=True)
def flex_without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_cases, "compiled_flex", lambda: flex_attention)


# ---------------------------------------------------------------------------------------------------------- cases


@pytest.mark.parametrize("name", CASES)
def test_the_rivals_compute_the_case(name: str) -> None:
    """What a user of PyTorch writes by hand means what the pattern means."""
    case = CASES[name](TOKENS, HEADS)
    q, k, v = inputs(TOKENS, 16, torch.float32, HEADS)
    wanted = cpu_cases.eager(case).attend(q, k, v)
    rivals = [cpu_cases.flex(case), cpu_cases.sdpa(case, HEADS, torch.float32)]
    assert [isinstance(each, Ready) for each in rivals] == [True, name != "softcap"]
    for each in rivals:
        if isinstance(each, Ready):
            torch.testing.assert_close(each.attend(q, k, v), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_pairs_are_those_that_the_pattern_sees(name: str) -> None:
    case = CASES[name](TOKENS, HEADS)
    visible = case.load().mask(TOKENS, TOKENS, heads=HEADS, **case.arguments())
    assert case.pairs() == int(visible[0, 0].sum())
    assert case.pairs() < TOKENS**2 or name == "full"


def test_images_are_square() -> None:
    with pytest.raises(ValueError, match="no square"):
        CASES["neighborhood 2-D"](1000, 1)


# --------------------------------------------------------------------------------------------------------- passes


def test_a_wrong_result_is_seen_in_the_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(case: cpu_cases.Case, target: str) -> Ready:
        right = cpu_cases.eager(case).attend
        return Ready("attnlang", target, lambda q, k, v: right(q, k, v) * 1.25)

    monkeypatch.setattr(cpu_passes, "ours", wrong)
    for backward in (False, True):
        row = cpu_passes.timed("causal", 64, 16, "float32", SMALL, backward=backward)
        assert row["entries"]["attnlang"]["error"] > 0.1
        assert row["entries"]["sdpa"]["error"] < 1e-4
    assert cpu_passes.accurate("causal", 64, 16, "bfloat16", SMALL)["error"]["attnlang"] > 0.1
    assert cpu_passes.decoded(64, 16, "float32", SMALL)["entries"]["attnlang"]["error"] > 1e-3


def test_a_failure_costs_its_own_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: cpu_cases.Case, target: str) -> Ready:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("lost\nand gone")

        return Ready("attnlang", target, attend)

    monkeypatch.setattr(cpu_passes, "ours", broken)
    row = cpu_passes.timed("causal", 64, 16, "float32", SMALL)
    assert row == {"case": "causal", "N": 64, "D": 16, "dtype": "float32", "failed": "RuntimeError: lost"}
    assert cpu_passes.accurate("causal", 64, 16, "float32", SMALL)["failed"] == "RuntimeError: lost"


def test_scores_reach_thirty() -> None:
    found: list[float] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        found.append(float((q @ k.mT).abs().max()) / 16**0.5)
        return v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_passes, "ours", lambda case, target: Ready("attnlang", "", attend))
        cpu_passes.accurate("full", 64, 16, "float32", SMALL)
    assert found == [pytest.approx(30.0, rel=1e-5)]


@needs_compiler
def test_recorded_launches_run_again_by_ctypes() -> None:
    """Of a first call, and of one that the driver has seen before."""
    q, k, v = inputs(16, 32, torch.float32, HEADS)
    attend = cpu_cases.ours(CASES["causal"](16, HEADS), "cpu").attend
    for _ in range(2):
        with cpu_overhead.recorded() as launches, torch.no_grad():
            out = attend(q, k, v)
        (launch,) = launches
        again = launch.results["out"][: out.nbytes].view(torch.float32).view(out.shape)
        assert not torch.equal(again, out)
        assert launch.run(launch.packed) > 0
        assert torch.equal(again, out)
    row = cpu_overhead.overhead(16, 32, "float32", cpu_passes.Setting(heads=HEADS, seconds=0.01, most=3))
    assert row["launches"] == 1 and row["median_us"]["attnlang"] > row["median_us"]["ctypes"] > 0


def test_a_target_without_launches_has_no_overhead_to_measure() -> None:
    assert "no C++ kernel" in cpu_overhead.overhead(16, 32, "float32", SMALL)["failed"]


def test_a_first_call_is_timed_in_its_process(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cpu_first.main("causal", "eager", "16", "8")
    found = json.loads(capsys.readouterr().out)
    assert found["load"] > 0 and found["call"] > 0
    (tmp_path / "modules.json").write_text('["no_such_module"]')
    with pytest.raises(ModuleNotFoundError):
        cpu_first.main("causal", "eager", "16", "8", str(tmp_path / "modules.json"))


def test_a_first_call_that_fails_says_so() -> None:
    row = cpu_first.first_calls("causal", "nowhere", 16, 8, 1)
    assert "there is no target 'nowhere'" in row["failed"] or "known:" in row["failed"]


# ----------------------------------------------------------------------------------------------------------- bars


def every_row(ratio: float) -> dict[str, list[dict[str, Any]]]:
    """Results in which every row that a bar asks for is there, with this ratio and share everywhere."""
    data: dict[str, list[dict[str, Any]]] = {}
    for bar in cpu_bars.bars():
        for name, tokens, features in bar.cases:
            row = {"case": name, "N": tokens, "D": features, "dtype": bar.dtype, "share_of_peak": 4 * ratio,
                   "ratio": {"sdpa": ratio, "flex": ratio}, "error": {"attnlang": 1 / ratio**4}, "allowed": 1.0,
                   "cold": 10 / ratio, "warm": 1 / ratio, "above_ctypes_us": 100 / ratio}  # fmt: skip
            data.setdefault(bar.part, []).append(row)
    return data


def test_every_bar_is_met_missed_or_not_measured() -> None:
    assert {each.met for each in cpu_bars.verdicts({})} == {"not measured"}
    assert {each.met for each in cpu_bars.verdicts(every_row(50.0))} == {"met"}
    assert {each.met for each in cpu_bars.verdicts(every_row(0.5))} == {"missed"}


def test_the_worst_case_decides_and_is_named() -> None:
    data = every_row(50.0)
    wanted = {"case": "softcap", "N": 1024, "D": 128, "dtype": "bfloat16"}
    (row,) = (row for row in data["forward"] if row.items() >= wanted.items())
    row["ratio"] = {"flex": 4.9}
    missed = [each for each in cpu_bars.verdicts(data) if each.met != "met"]
    assert [(each.dtype, each.met, each.worst, each.worst_case) for each in missed] == [
        ("bfloat16", "missed", 4.9, "softcap, N = 1,024, D = 128")
    ]
    row.pop("ratio")
    assert [each.met for each in cpu_bars.verdicts(data) if each.met != "met"] == ["met so far"]
    row["failed"] = "RuntimeError: lost"
    (each,) = (each for each in cpu_bars.verdicts(data) if each.met != "met")
    assert (each.met, each.failed) == ("missed", ("softcap, N = 1,024, D = 128: RuntimeError: lost",))


def test_bars_ask_for_cases_that_the_benchmark_has() -> None:
    for bar in cpu_bars.bars():
        assert bar.part in cpu.PARTS
        if bar.part in ("forward", "backward", "accuracy"):
            assert {name for name, _, _ in bar.cases} <= set(CASES)


# ------------------------------------------------------------------------------------------------- the whole of it


@needs_compiler
def test_a_quick_run_writes_its_results_with_machine_load_and_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--quick", "--only", "forward", "backward", "accuracy", "decode", "--cases", "causal", "softcap"]
    code = cpu.main([*words, "--heads", "2", "--target", "eager", "--output", str(tmp_path)])
    data = json.loads((tmp_path / "cpu-quick.json").read_text())
    assert code == 0
    assert data["machine"]["commit"] and data["machine"]["compiler"] and data["threads"] >= 1
    assert len(data["load"]["load_at_start"]) == 3 and data["load"]["seconds"] > 0
    assert [row["case"] for row in data["forward"]] == ["causal", "causal", "softcap", "softcap"]
    own = data["forward"][0]
    gflops = 4 * (256 * 257 // 2) * 2 * 64 / own["entries"]["attnlang"]["median_ms"] / 1e6
    assert own["entries"]["attnlang"]["gflops"] == pytest.approx(gflops, rel=1e-3, abs=0.01)
    assert own["share_of_peak"] == pytest.approx(100 * gflops / own["peak_gflops"], rel=0.01, abs=0.06)
    assert own["share_of_best_peak"] == pytest.approx(100 * gflops / data["peak"]["float32"], abs=0.06)
    assert 0.02 * data["peak"]["float32"] < own["peak_gflops"] < 1.1 * data["peak"]["float32"]
    assert own["ratio"]["sdpa"] > 0 and "softcap" not in own["absent"]
    assert data["forward"][2]["absent"]["sdpa"] == "it has no function of the score"
    assert len(data["bars"]) == len(list(cpu_bars.bars())) and {each["met"] for each in data["bars"]} == {
        "not measured"
    }
    assert (tmp_path / "cpu-quick.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "not measured  float32   full and causal" in capsys.readouterr().out
    text = cpu_page.results(data)
    assert text.count("\n| causal | 256 | 64 | float32 |") == 3 and "GF/s" in text
    assert text.count("| not measured |") == len(data["bars"])
    assert "## One query" in text and "| one query | 512 | 64 | bfloat16 |" in text
    shown = f"{data['accuracy'][0]['error']['eager']:.1e}"
    assert f"| causal | 256 | 64 | float32 | {shown} | {shown} |" in text


def test_without_a_compiler_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with override(compiler=str(tmp_path / "no-such-compiler")):
        code = cpu.main(["--quick", "--only", "forward", "--output", str(tmp_path)])
    assert code == 2 and "no-such-compiler" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_a_run_of_everything_is_called_cpu() -> None:
    some = [
        "--cases causal",
        "--target eager",
        "--rivals sdpa",
        "--lengths 4096",
        "--dtypes float32",
        "--heads 4",
    ]
    names = {"": "cpu", "--long": "cpu", "--quick": "cpu-quick", "--only forward": "cpu-forward"}
    names |= {"--only overhead first": "cpu-overhead-first", **dict.fromkeys(some, "cpu-some")}
    assert {words: cpu.name_of(cpu.options_of(words.split())) for words in names} == names


def test_work_of_others_marks_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_load, "_load", lambda: (0.0, 0.0, 0.0))
    for others, loaded in ((0.0, False), (1.0, True)):
        clock = time.perf_counter()
        monkeypatch.setattr(
            cpu_load, "_busy", lambda clock=clock, n=others: (time.perf_counter() - clock) * n
        )
        monkeypatch.setattr(cpu_load, "_own", lambda: 0.0)
        watch = cpu_load.Watch.start()
        time.sleep(0.05)
        end = watch.end()
        assert end["processors_used_by_others"] == pytest.approx(others, abs=0.02)
        assert end["under_load"] is loaded
    monkeypatch.setattr(cpu_load, "_busy", lambda: None)
    monkeypatch.setattr(cpu_load, "_load", lambda: (1.5, 0.0, 0.0))
    end = cpu_load.Watch.start().end()
    assert (end["processors_used_by_others"], end["under_load"]) == (None, True)


def test_the_page_is_made_from_the_results() -> None:
    """Where this fails: python benchmarks/cpu_page.py"""
    assert cpu_page.page(cpu_page.recorded()) == cpu_page.PAGE.read_text(encoding="utf-8")
