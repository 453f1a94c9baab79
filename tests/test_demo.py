"""The demonstration, at sizes that take seconds: every step runs, agrees and leaves its file."""

from pathlib import Path

import pytest

from attnlang import demo


def test_the_demo_compiles_runs_agrees_explains_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("HEADS", 2),
        ("LENGTH", 96),
        ("WINDOW", 40),
        ("SMALL_LENGTH", 40),
        ("SMALL_WINDOW", 10),
    ):
        monkeypatch.setattr(demo, name, value)
    assert demo.main() == 0
    out = capsys.readouterr().out
    assert out.count("agrees with its definition") == 2
    for words in (
        "registers",
        "spills",
        "shared memory",
        "wgmma",
        "key ranges",
        "full",
        "demo/sliding_window.png",
    ):
        assert words in out
    starts = {
        "cuda-90.py": b"", "cuda-90.ptx": b"//", "cuda-90.cubin": b"\x7fELF", "png": b"\x89PNG", "plan.txt": b"plan",
    }  # fmt: skip
    for suffix, start in starts.items():
        assert (tmp_path / "demo" / f"sliding_window.{suffix}").read_bytes().strip().startswith(start)


def test_the_demo_says_when_a_result_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "MARGIN", 0.0)
    for name, value in (("HEADS", 1), ("LENGTH", 64), ("SMALL_LENGTH", 32), ("SMALL_WINDOW", 10)):
        monkeypatch.setattr(demo, name, value)
    assert demo.main() == 1
    assert "DISAGREES" in capsys.readouterr().out


def test_the_demo_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "EXAMPLE", tmp_path / "none.attn")
    assert demo.main() == 1
    assert "error[E101]" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("a file")
    assert demo.main() == 1
    assert "demo/ cannot be written" in capsys.readouterr().err
