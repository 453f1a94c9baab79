"""Files that are no pattern: each gives one clear error, quickly, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnlang.errors import Diagnostic
from attnlang.grammar.parser import parse_file, read_source

GOOD = b"pattern p():\n    mask q >= k\n"


def refused(path: Path) -> Diagnostic:
    with pytest.raises(Diagnostic) as caught:
        read_source(path)
    return caught.value


def written(folder: Path, data: bytes) -> Path:
    path = folder / "p.attn"
    path.write_bytes(data)
    return path


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "none.attn"
    assert refused(path).report() == f"error[E101]: there is no file '{path}'"


def test_directory(tmp_path: Path) -> None:
    assert refused(tmp_path).report() == f"error[E102]: '{tmp_path}' is a directory\n  name one .attn file"


def test_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert refused(tmp_path / ("x" * 5000)).code in ("E101", "E103")
    assert refused(Path(str(tmp_path / "a\0b"))).code in ("E101", "E103")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everything can be read by root")
def test_unreadable(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.chmod(0)
    assert refused(path).code == "E103"


def test_special_file_is_not_read_forever() -> None:
    assert refused(Path("/dev/zero")).code in ("E103", "E104", "E106")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.attn"
    os.mkfifo(path)
    assert refused(path).code == "E103"


def test_enormous_file_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "p.attn"
    with path.open("wb") as file:
        file.truncate(100_000_000_000)
    assert refused(path).report().startswith(f"error[E104]: '{path}' is larger than 1,000,000 bytes")


@pytest.mark.parametrize("data", [b"", b"\n  \n\t\n", b"\xef\xbb\xbf\n"])
def test_empty(tmp_path: Path, data: bytes) -> None:
    assert refused(written(tmp_path, data)).code == "E105"


def test_binary(tmp_path: Path) -> None:
    assert "it has a zero byte (line 2)" in refused(written(tmp_path, b"# x\n\x7fELF\x00\x01")).report()
    error = refused(written(tmp_path, GOOD + b"# caf\xe9\n"))
    assert (error.code, "byte 0xe9 is not UTF-8 (line 3)" in error.report()) == ("E106", True)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        GOOD.rstrip(b"\n"),
        GOOD.replace(b"\n", b"   \n\n\t\n"),
        GOOD.replace(b"    ", b"\t"),
        "# naïve ≤ ∑ 注意 🙂\n".encode() + GOOD,
        b"    pattern p():\n        mask q >= k\n",
    ],
    ids=["mark", "crlf", "cr", "no end", "blanks", "tabs", "unicode comment", "indented"],
)
def test_harmless_variants_read_the_same(tmp_path: Path, data: bytes) -> None:
    wanted = parse_file(read_source(written(tmp_path, GOOD)))
    assert parse_file(read_source(written(tmp_path, data))) == wanted
