"""The commands that are about files: check, fmt, new, cache."""

import io
import os
import sys
from pathlib import Path

import pytest

from attnlang import cli_new
from attnlang.settings import override
from tests.command_line import GOOD, LOOSE, Outcome, Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command inside a folder of its own."""
    return runner(capsys, tmp_path, monkeypatch)


# ------------------------------------------------------------------------------------------------- check


def test_check_says_ok_and_why_claims_hold(run: Run, tmp_path: Path) -> None:
    (tmp_path / "claims.attn").write_text(GOOD + "    assert causal\n")
    (tmp_path / "defs.attn").write_text("def twice(x) = 2 * x\n")
    done = run("check", "near.attn", "claims.attn", "defs.attn")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "near.attn: ok: near",
        "claims.attn: ok: near",
        "  claims.attn:5:5: near: assert causal: proved: every key that is visible has k <= q",
        "defs.attn: ok, definitions only",
    ]
    assert run("check", "-q", "near.attn") == Outcome(0, "", "")


def test_check_tells_all_mistakes_of_all_files(run: Run) -> None:
    done = run("check", "wrong.attn", "near.attn", "none.attn")
    assert done.code == 1
    assert done.out == "near.attn: ok: near\n"
    heads = [line for line in done.err.splitlines() if "error[" in line]
    assert heads == [
        "wrong.attn:2:22: error[E203]: unknown name 'widow'",
        "wrong.attn:3:28: error[E203]: unknown name 'sale'",
        "error[E101]: there is no file 'none.attn'",
    ]
    assert done.err.endswith("3 mistakes in 2 files\n")


def test_a_mistake_that_two_patterns_share_is_told_once(run: Run, tmp_path: Path) -> None:
    text = "def far(x) = x > limt\n\npattern one():\n    mask far(q)\n\npattern two():\n    mask far(k)\n"
    (tmp_path / "two.attn").write_text(text)
    done = run("check", "two.attn")
    assert done.err.count("unknown name 'limt'") == 1


def test_check_json_for_editors(run: Run) -> None:
    done = run("check", "--json", "near.attn", "wrong.attn")
    assert (done.code, done.json["ok"]) == (1, False)
    good, bad = done.json["files"]
    pattern = {"name": "near", "doc": "", "claims": []}
    assert good == {"file": "near.attn", "ok": True, "patterns": [pattern], "errors": []}
    assert bad["errors"][0]["message"] == "unknown name 'widow'"
    assert (bad["errors"][0]["line"], bad["errors"][0]["column"]) == (2, 22)


# --------------------------------------------------------------------------------------------------- fmt


def test_fmt_rewrites_in_place_and_keeps_comments_and_permissions(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "loose.attn"
    path.write_text(LOOSE.replace(" >= 1 = 8", ">=1=8"))
    path.chmod(0o640)
    assert run("fmt", "loose.attn", "near.attn") == Outcome(0, "loose.attn: formatted\n", "")
    assert path.read_text() == GOOD
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loose.attn", "near.attn", "wrong.attn"]


def test_fmt_follows_a_link_and_leaves_it_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "real.attn").write_text(LOOSE)
    (tmp_path / "link.attn").symlink_to("real.attn")
    assert run("fmt", "link.attn").code == 0
    assert (tmp_path / "link.attn").is_symlink()
    assert (tmp_path / "real.attn").read_text() == GOOD


def test_fmt_check_and_diff_write_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "loose.attn").write_text(LOOSE)
    done = run("fmt", "--check", "loose.attn", "near.attn")
    assert (done.code, done.out) == (1, "loose.attn\n")
    assert done.err.startswith("1 file would change")
    done = run("fmt", "--diff", "loose.attn", "near.attn")
    assert done.code == 0
    assert "-  mask     causal\n" in done.out or "-  mask   causal\n" in done.out
    assert "+    mask     causal\n" in done.out
    assert (tmp_path / "loose.attn").read_text() == LOOSE


def test_fmt_line_ends_of_windows_become_plain(run: Run, tmp_path: Path) -> None:
    (tmp_path / "crlf.attn").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert run("fmt", "--check", "crlf.attn").code == 1
    assert run("fmt", "crlf.attn").code == 0
    assert (tmp_path / "crlf.attn").read_bytes() == GOOD.encode()


def test_fmt_leaves_a_file_with_mistakes_and_does_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.attn").write_text("pattern p(:\n    mask causal\n")
    (tmp_path / "loose.attn").write_text(LOOSE)
    done = run("fmt", "broken.attn", "loose.attn")
    assert done.code == 1
    assert "broken.attn:1:" in done.err
    assert (tmp_path / "broken.attn").read_text() == "pattern p(:\n    mask causal\n"
    assert (tmp_path / "loose.attn").read_text() == GOOD


def test_fmt_reads_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stdin(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    stdin(LOOSE.encode())
    assert run("fmt", "-") == Outcome(0, GOOD, "")
    stdin(b"pattern \xff")
    assert "error[E106]: '<stdin>' is not a text in UTF-8" in run("fmt", "-").err
    stdin(b"#" * 1_000_001)
    assert "error[E104]" in run("fmt", "-").err


def test_a_full_disk_loses_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loose.attn").write_text(LOOSE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = run("fmt", "loose.attn")
    assert (done.code, done.err) == (
        1,
        "error[E603]: 'loose.attn' cannot be written: No space left on device\n",
    )
    assert (tmp_path / "loose.attn").read_text() == LOOSE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loose.attn", "near.attn", "wrong.attn"]


# --------------------------------------------------------------------------------------------------- new


def test_new_writes_a_pattern_that_checks_runs_and_is_canonical(run: Run, tmp_path: Path) -> None:
    done = run("new", "longcat", "--directory", "sub/folder")
    assert done.code == 0
    path = "sub/folder/longcat.attn"
    assert (tmp_path / path).read_text() == cli_new.starter("longcat")
    assert run("check", path).out == f"{path}: ok: longcat\n"
    assert run("fmt", "--check", path).code == 0
    assert "agrees with its definition" in run("run", path, "-n", "40", "--heads", "2").out


def test_new_never_overwrites(run: Run, tmp_path: Path) -> None:
    done = run("new", "near")
    assert (done.code, "error[E604]: 'near.attn' exists" in done.err) == (1, True)
    assert (tmp_path / "near.attn").read_text() == GOOD


@pytest.mark.parametrize("name", ["9lives", "a-b", "../evil", "", "Ünicode", "x" * 200])
def test_new_refuses_what_is_no_name(run: Run, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run("new", name)
    assert (done.code, "error[E605]" in done.err) == (1, True)
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------- cache


def test_cache_lists_clears_and_says_where_it_lies(run: Run, tmp_path: Path) -> None:
    from attnlang.execute_programs import kernel_cache

    with override(cache_directory=tmp_path / "kernels"):
        assert run("cache", "path") == Outcome(0, f"{tmp_path / 'kernels'}\n", "")
        assert run("cache", "ls").out == f"{tmp_path / 'kernels'}: 0 entries, 0 B\n"
        note = {"pattern": "near", "target": "cuda:90", "kind": "source"}
        kernel_cache().put("a" * 64, {"kernel.py": b"x" * 3000}, note)
        listed = run("cache", "ls").out
        for word in ("near", "cuda:90", "source", "just now", "a" * 12, "1 entry"):
            assert word in listed
        (entry,) = run("cache", "ls", "--json").json["entries"]
        assert (entry["key"], entry["note"]) == ("a" * 64, note)
        assert "removed 1 entry" in run("cache", "clear").out
        assert run("cache", "ls", "--json").json["entries"] == []
