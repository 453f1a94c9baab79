"""The command line: what commands print, exit codes, and reports in place of tracebacks."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attnlang
from attnlang import cli, cli_options, compiler
from attnlang.settings import override
from tests.command_line import GOOD, Outcome, Run, runner

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command inside a folder of its own."""
    return runner(capsys, tmp_path, monkeypatch)


# ------------------------------------------------------------------------------------------------ usage


def test_help_names_every_command_and_nothing_that_is_not_there(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for command in ("compile", "check", "explain", "run", "bench", "show", "fmt", "cache", "new"):
        assert f"\n  {command} " in done.out
        assert run(command, "--help").out.startswith(f"usage: attnlang {command}")


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == Outcome(0, f"attnlang {attnlang.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ""),
        (("chek", "near.attn"), "there is no command 'chek', did you mean 'check'?"),
        (("frobnicate",), "there is no command 'frobnicate'\n"),
        (("check",), "the following arguments are required: FILE"),
        (("check", "near.attn", "--loud"), "unrecognized arguments: --loud"),
        (("run", "near.attn", "-n", "many"), "'many' is no count (as in 4096 or 64k)"),
        (("run", "near.attn", "-n", "0"), "'0' is no count"),
        (("run", "near.attn", "-p", "window"), "'window' is not name=value"),
        (("run", "near.attn", "-p", "window=__import__('os')"), "a value is an int, a float, true or false"),
        (("run", "near.attn", "-p", "window=2", "-p", "window=3"), "-p window is given twice"),
        (("run", "near.attn", "--dtype", "fp8"), "'fp8' is no number format of kernels (bf16, fp16, fp32)"),
        (("show", "near.attn"), "the following arguments are required: -o/--output"),
        (("show", "near.attn", "-o", "m.png", "--heads", "2", "--head", "2"), "there are 2 heads, 0 to 1"),
        (("fmt", "--check", "--diff", "near.attn"), "not allowed with argument"),
        (("cache", "burn"), "invalid choice: 'burn'"),
    ],
)
def test_wrong_usage_is_told_with_code_2(run: Run, words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), ("-3", -3), ("0.5", 0.5), ("1e-3", 0.001), (".5", 0.5), ("true", True), ("False", False)],
)
def test_values_of_parameters(text: str, value: bool | int | float) -> None:
    found = cli_options.value_of("name", text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["1_000", "0x10", "nan", "1e9999", "[1]", "'a'", "9" * 100, "1+1", "window"])
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(cli_options.UsageError):
        cli_options.value_of("name", text)


def test_counts_have_units() -> None:
    assert [cli_options.count(text) for text in ("7", "64k", "1M")] == [7, 65536, 2**20]


# ------------------------------------------------------------------------------------------------ errors


def test_a_missing_file_is_the_users_mistake(run: Run) -> None:
    for command in (("run",), ("explain",), ("compile",), ("check",), ("fmt",), ("show", "-o", "m.png")):
        done = run(*command, "none.attn")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error[E101]: there is no file 'none.attn'")


def test_an_unforeseen_error_is_one_line_and_a_code_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, name: str | None = None) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(compiler, "load", broken)
    done = run("explain", "near.attn")
    assert done.code == 70
    assert done.err == (
        "attnlang: internal error: KeyError: 'lost': please report this "
        "(ATTNLANG_DEBUG=plan shows where it came from)\n"
    )
    with override(debug=frozenset({"plan"})):
        assert "Traceback" in run("explain", "near.attn").err


def test_an_interrupt_and_too_little_memory_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Callable[..., None]:
        def load(*arguments: object) -> None:
            raise error

        return load

    monkeypatch.setattr(compiler, "load", raising(KeyboardInterrupt()))
    assert run("explain", "near.attn").code == 130
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")):
        monkeypatch.setattr(compiler, "load", raising(error))
        done = run("explain", "near.attn")
        assert (done.code, "not enough memory" in done.err) == (1, True)


def test_with_json_errors_are_json_too(run: Run) -> None:
    done = run("explain", "wrong.attn", "--json")
    assert done.code == 1
    assert [error["code"] for error in done.json["errors"]] == ["E203", "E203"]
    assert "unknown name 'widow'" in done.err


def test_a_wrong_environment_variable_is_told_before_anything_else() -> None:
    code = "import sys; from attnlang.cli import main; sys.exit(main(['check', 'none.attn']))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ATTNLANG_DEBUG": "everything"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error[E501]: ATTNLANG_DEBUG='everything': no such topic")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "near.attn").write_text("".join(GOOD.replace("near", f"near{i}") for i in range(20)))
    command = f"{sys.executable} -m attnlang fmt - < near.attn | head -c 1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_fmt_load_nothing_large(tmp_path: Path) -> None:
    (tmp_path / "near.attn").write_text(GOOD)
    heavy = ("torch", "triton", "sympy", "matplotlib", "rich")
    for words in (["--help"], ["fmt", "--check", "near.attn"], ["cache", "path"]):
        code = f"""import sys; from attnlang.cli import main; main({words!r})
print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr.split() == []


# -------------------------------------------------------------------------------------- run, show, explain


def test_run_compares_with_the_definition(run: Run) -> None:
    done = run(
        "run", "near.attn", "-n", "48", "--nq", "16", "--heads", "4", "--kv-heads", "2", "--head-dim", "8"
    )
    assert (done.code, done.err) == (0, "")
    assert "near(window=8): agrees with its definition" in done.out
    assert "4 heads (2 for keys) × 16 queries, 48 keys × 8, fp32, random" in done.out


def test_run_json(run: Run) -> None:
    words = (
        "run",
        "near.attn",
        "-n",
        "32",
        "--heads",
        "2",
        "--head-dim",
        "16",
        "--value-dim",
        "8",
        "-p",
        "window=5",
    )
    found = run(*words, "--json", "--dtype", "bfloat16").json
    assert found["ok"] is True
    assert found["sizes"] == {"B": 1, "H": 2, "HK": 2, "NQ": 32, "NK": 32, "D": 16, "DV": 8}
    assert (found["parameters"], found["dtype"], found["target"]) == ({"window": 5}, "bf16", "eager")
    assert 0 < found["max_abs_error"] < 0.05
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    ("wrong", "said"), [(0.01, "DISAGREES"), (float("nan"), "infinite or NaN on one side only")]
)
def test_run_notices_a_wrong_result(
    run: Run, monkeypatch: pytest.MonkeyPatch, wrong: float, said: str
) -> None:
    right = attnlang.Pattern.__call__

    def kernel(pattern: attnlang.Pattern, *inputs: Any, target: str | None, **arguments: Any) -> Any:
        out = right(pattern, *inputs, target="eager", **arguments)
        if target == "interpret":
            out[0, 1, 2, 3] += wrong
        return out

    monkeypatch.setattr(attnlang.Pattern, "__call__", kernel)
    done = run("run", "near.attn", "-n", "32", "--heads", "2", "--head-dim", "8", "--target", "interpret")
    assert (done.code, said in done.out) == (70, True)
    assert "the result on interpret is not what 'near' means: please report this" in done.err


def test_run_makes_every_declared_tensor(run: Run, tmp_path: Path) -> None:
    (tmp_path / "all.attn").write_text(
        "pattern all(buckets: int >= 1 = 3):\n"
        "    tensor ids[b, n]: int\n"
        "    tensor kept[h]: bool\n"
        "    tensor slopes[h]\n"
        "    tensor table[h, buckets]\n"
        "    tensor place[b, q]: int\n"
        "    mask  ids[b, q] == ids[b, k] or kept[h]\n"
        "    score Q[q] @ K[k] * scale - slopes[h] * abs(q - k) + table[h, place[b, q]]\n"
    )
    done = run("run", "all.attn", "-n", "20", "--heads", "2", "--head-dim", "8")
    assert (done.code, done.err) == (0, "")
    assert "ids [1, 20], kept [2], slopes [2], table [2, 3], place [1, 20]" in done.out


def test_a_tensor_or_an_unknown_name_behind_p_is_told(run: Run, tmp_path: Path) -> None:
    text = "pattern doc(size: int = 4):\n    tensor ids[b, n]: int\n    mask document(ids)\n"
    (tmp_path / "doc.attn").write_text(text)
    done = run("run", "doc.attn", "-p", "ids=[0,1]", "-p", "sise=3")
    assert done.code == 1
    assert "error[E606]: 'ids' is a tensor of 'doc', and -p gives parameters" in done.err
    assert "did you mean 'size'?" in done.err
    done = run("run", "near.attn", "-p", "window=0")
    assert (done.code, "'window'" in done.err, "≥ 1" in done.err) == (1, True, True)


def test_a_parameter_without_default_is_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "grid.attn").write_text("pattern image(height: int >= 1):\n    mask q < height\n")
    done = run("run", "grid.attn", "-n", "8")
    assert (done.code, "it has no default; add -p height=…" in done.err) == (1, True)
    assert run("run", "grid.attn", "-n", "8", "--heads", "1", "-p", "height=4").code == 0


def test_several_patterns_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "two.attn").write_text(GOOD + "\n" + GOOD.replace("near", "other"))
    assert run("run", "two.attn", "-n", "16").code == 1
    done = run("run", "two.attn", "-n", "16", "--heads", "1", "--pattern", "other")
    assert (done.code, done.out.startswith("other(window=8)")) == (0, True)


def test_an_unknown_target_is_told(run: Run) -> None:
    done = run("run", "near.attn", "-n", "16", "--target", "cuda:9")
    assert (done.code, "error[E502]" in done.err) == (1, True)


def test_show_draws_and_counts(run: Run, tmp_path: Path) -> None:
    done = run("show", "near.attn", "-n", "64", "--tiles", "16", "-p", "window=64", "-o", "pictures/near.png")
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == "6 full, 4 partial, 6 empty tiles of 16 × 16, 50.78% of the pairs visible\npictures/near.png\n"
    )
    assert (tmp_path / "pictures" / "near.png").read_bytes().startswith(b"\x89PNG")
    assert run("show", "near.attn", "-o", "near.gif").code == 1


def test_show_has_a_panel_for_each_head_that_differs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "heads.attn").write_text("pattern heads():\n    mask k <= q and k mod (h + 1) == 0\n")
    done = run("show", "heads.attn", "-n", "16", "--heads", "2", "--tiles", "8", "-o", "h.svg")
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["head 0", "head 1", "h.svg"]
    done = run("show", "heads.attn", "-n", "16", "--heads", "2", "--tiles", "8", "--head", "1", "-o", "h.svg")
    assert done.out.startswith("head 1: ")
    done = run("show", "near.attn", "-n", "16", "--heads", "3", "-o", "h.svg")
    assert done.out.startswith("all 3 heads: ")


def test_show_draws_what_a_choice_lets_through(run: Run, tmp_path: Path) -> None:
    (tmp_path / "best.attn").write_text(
        "pattern best():\n    select near[q] = top(2) k by Q[q] @ K[k]\n    sparsity near(q, k)\n"
    )
    done = run("show", "best.attn", "-n", "16", "-o", "best.png")
    assert (done.code, "12.50% of the pairs visible" in done.out) == (0, True)


def test_explain_compares_two_plans(run: Run) -> None:
    Path("all.attn").write_text("pattern all():\n    mask causal\n", encoding="utf-8")
    words = (
        "explain",
        "near.attn",
        "--compare",
        "all.attn",
        "-n",
        "1k",
        "--heads",
        "2",
        "--target",
        "cuda:90",
    )
    done = run(*words, "-p", "window=64")
    assert done.code == 0, done.err
    assert re.search(r"^ +near +all$", done.out, re.MULTILINE)
    assert re.search(r"^  tiles visited +[\d,]+ +[\d,]+ +× [\d.]+$", done.out, re.MULTILINE)
    assert re.search(r"^  parameters +window=64 +-$", done.out, re.MULTILINE)
    found = run(*words, "-p", "window=64", "--json").json
    assert [plan["pattern"] for plan in found["plans"]] == ["near", "all"]
    assert found["plans"][0]["flops"] < found["plans"][1]["flops"]
    assert all(len(set(each["choices"])) == 2 for each in found["differences"])
    again = run(
        "explain", "near.attn", "--compare", "near.attn", "-n", "1k", "--target", "cuda:90", "--json"
    ).json
    assert again["differences"] == []
    assert run(*words, "-p", "windo=64").code == 1
    assert run("explain", "near.attn", "--compare", "none.attn").code == 1


def test_explain_prints_the_plan_and_json(run: Run) -> None:
    words = ("explain", "near.attn", "-n", "1k", "--heads", "2", "--target", "cuda:90", "-p", "window=64")
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "near" in done.out and "cuda:90" in done.out
    found = run(*words, "--json").json
    assert (found["ok"], found["pattern"], found["parameters"]) == (True, "near", {"window": 64})
    assert found["sizes"]["NK"] == 1024


# ----------------------------------------------------------------------------------------------- compile


def test_compile_refuses_what_it_cannot_emit(run: Run) -> None:
    done = run("compile", "near.attn", "--emit", "sass")
    assert (done.code, "--emit knows no 'sass'" in done.err) == (1, True)


def test_compile_is_for_gpus_and_cpus(run: Run) -> None:
    for target in ("eager", "interpret"):
        done = run("compile", "near.attn", "--target", "cuda:90", "--target", target)
        assert done.code == 1
        assert done.err == (
            f"error[E609]: there is nothing to compile ahead of time for '{target}'\n"
            "  there are cuda:80, cuda:90, cuda:100, hip:gfx942, cpu\n"
        )


def test_compile_writes_every_stage(run: Run, tmp_path: Path) -> None:
    done = run(
        "compile", "near.attn", "-o", "build", "--emit", "all", "--head-dim", "32", "--target", "cuda:80"
    )
    assert (done.code, done.err) == (0, "")
    names = {path.name for path in (tmp_path / "build").iterdir()}
    place = "near.cuda-80"
    assert names == {"near.ir.txt", f"{place}.plan.txt", f"{place}.py", f"{place}.ptx", f"{place}.cubin"}
    assert "@triton.jit" in (tmp_path / "build" / f"{place}.py").read_text()
    assert ".target sm_80" in (tmp_path / "build" / f"{place}.ptx").read_text()
    assert (tmp_path / "build" / f"{place}.cubin").read_bytes().startswith(b"\x7fELF")
    assert "registers" in done.out


def test_compile_json_has_what_a_kernel_needs(run: Run) -> None:
    found = run(
        "compile", "near.attn", "--emit", "triton", "--head-dim", "32", "--json", "--target", "cuda:90"
    ).json
    (kernel,) = found["kernels"]
    assert kernel["target"] == "cuda:90"
    assert 0 < kernel["registers"] <= 255
    assert kernel["shared_bytes"] <= kernel["shared_limit_bytes"]
    assert len(found["files"]) == 1


def test_every_command_is_documented_where_it_is_listed() -> None:
    for command in cli.COMMANDS:
        module = sys.modules.get(f"attnlang.cli_{command.name}") or command.load()
        assert (module.__doc__ or "").startswith(f"`attnlang {command.name}`")
