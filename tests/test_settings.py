"""What each environment variable means, and the report on each one that means nothing."""

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import cast, get_type_hints

import pytest

from attnlang.errors import AttnlangError
from attnlang.settings import (
    DEFAULT_CACHE_SIZE,
    TOPICS,
    BadSetting,
    Changes,
    Options,
    options,
    override,
)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Options.from_environment({}) == Options()
    assert Options() == Options(
        target=None,
        cache_directory=None,
        cache_size=DEFAULT_CACHE_SIZE,
        debug=frozenset(),
        dump_directory=None,
        color=True,
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    names = ("TARGET", "CACHE_DIR", "CACHE_SIZE", "DEBUG", "DUMP")
    for blank in ("", "  "):
        environment = {f"ATTNLANG_{name}": blank for name in names} | {"NO_COLOR": ""}
        assert Options.from_environment(environment) == Options()


def test_other_variables_are_left_alone() -> None:
    assert Options.from_environment({"PATH": "/bin", "ATTNLANG_SOMETHING": "else"}) == Options()


TARGETS = ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942", "cpu", "interpret", "eager"]


@pytest.mark.parametrize("target", TARGETS)
def test_target(target: str) -> None:
    assert Options.from_environment({"ATTNLANG_TARGET": f" {target} "}).target == target


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("2G", 2 * 1024**3),
        ("2g", 2 * 1024**3),
        ("2GB", 2 * 1024**3),
        ("2 GiB", 2 * 1024**3),
        ("500M", 500 * 1024**2),
        ("1.5k", 1536),
        ("1T", 1024**4),
        ("123456789012345", 123456789012345),
        (" 7b ", 7),
    ],
)
def test_cache_size(text: str, size: int) -> None:
    assert Options.from_environment({"ATTNLANG_CACHE_SIZE": text}).cache_size == size


def test_debug_topics() -> None:
    assert Options.from_environment({"ATTNLANG_DEBUG": "plan, Kernel,,plan"}).debug == {"plan", "kernel"}
    assert Options.from_environment({"ATTNLANG_DEBUG": ",".join(TOPICS)}).debug == set(TOPICS)


def test_directories_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    found = Options.from_environment({"ATTNLANG_CACHE_DIR": "kernels", "ATTNLANG_DUMP": "~/stages"})
    assert (found.cache_directory, found.dump_directory) == (tmp_path / "kernels", tmp_path / "stages")
    assert list(tmp_path.iterdir()) == [], "reading the options must not create anything"


def test_no_color_has_any_value_but_the_empty_one() -> None:
    assert not Options.from_environment({"NO_COLOR": "0"}).color
    assert Options.from_environment({"NO_COLOR": ""}).color


@pytest.mark.parametrize(
    ("variable", "value", "report"),
    [
        (
            "ATTNLANG_TARGET",
            "cuda:9o",
            "error[E501]: ATTNLANG_TARGET='cuda:9o': no such target; there are cuda:80, cuda:90, cuda:100,"
            " hip:gfx942, cpu, interpret, eager\n  did you mean 'cuda:90'?",
        ),
        (
            "ATTNLANG_CACHE_SIZE",
            "lots",
            "error[E501]: ATTNLANG_CACHE_SIZE='lots': a size is a number of bytes, or one with K, M, G or T,"
            " as in 500M or 2G",
        ),
        (
            "ATTNLANG_DEBUG",
            "kernel,plna",
            "error[E501]: ATTNLANG_DEBUG='plna': no such topic; there are plan, kernel, rules, cache, launch"
            "\n  did you mean 'plan'?",
        ),
        ("ATTNLANG_DUMP", "a\0b", "error[E501]: ATTNLANG_DUMP='a\\x00b': a path has no NUL character"),
    ],
)
def test_the_report_on_a_bad_value(variable: str, value: str, report: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Options.from_environment({variable: value})
    assert str(caught.value) == report


@pytest.mark.parametrize("size", ["-1", "2X", "1e9", "nan", "inf", "٣", "2 G x", "1.5.5G", "9" * 1_000_000])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(BadSetting, match="ATTNLANG_CACHE_SIZE") as caught:
        Options.from_environment({"ATTNLANG_CACHE_SIZE": size})
    assert len(str(caught.value)) < 300


def test_stages_cannot_be_dumped_into_a_file(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    with pytest.raises(BadSetting, match="this is a file"):
        Options.from_environment({"ATTNLANG_DUMP": str(occupied)})


def test_a_tilde_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(BadSetting, match="no home directory is known"):
        Options.from_environment({"ATTNLANG_CACHE_DIR": "~/kernels"})


def test_a_bad_setting_is_a_value_error_of_ours_and_travels_between_processes() -> None:
    with pytest.raises(ValueError, match="no such target") as caught:
        Options.from_environment({"ATTNLANG_TARGET": "tpu"})
    assert isinstance(caught.value, AttnlangError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_options_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = options()
    monkeypatch.setenv("ATTNLANG_CACHE_SIZE", "12345")
    assert options() is before
    assert before.cache_size != 12345


def test_options_are_frozen() -> None:
    for field in fields(Options):
        with pytest.raises(FrozenInstanceError):
            setattr(options(), field.name, None)


def test_override_nests_and_ends() -> None:
    before = options()
    with override(target="eager", cache_size=1) as outer:
        assert options() is outer
        with override(color=not before.color):
            assert (options().target, options().cache_size, options().color) == ("eager", 1, not before.color)
        assert options() is outer
    assert options() is before


def test_override_back_to_what_was() -> None:
    before = options()
    with override(cache_size=before.cache_size + 1) as outer:
        with override(cache_size=before.cache_size), override(cache_size=outer.cache_size):
            assert options() == outer
        assert options() is outer
    assert options() is before


def test_override_ends_when_its_block_fails() -> None:
    before = options()
    with pytest.raises(ZeroDivisionError), override(target="cpu"):
        _ = 1 // 0
    assert options() is before


def test_override_knows_its_fields() -> None:
    assert set(get_type_hints(Changes)) == {field.name for field in fields(Options)}
    unchecked = cast(Callable[..., AbstractContextManager[Options]], override)
    with pytest.raises(TypeError, match="widow"), unchecked(widow=1):
        pass
