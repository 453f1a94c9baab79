"""Keys of the kernel cache: equal for equal parts in any process, different for anything that differs."""

from __future__ import annotations

import importlib.metadata
import math
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnlang.runtime import key as key_module
from attnlang.runtime.key import Part, content_key, environment_parts, flags_of_listing

ROOT = Path(__file__).resolve().parents[1]

LEAVES: st.SearchStrategy[Part] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, "", "1", b"", b"1", "\ud800", "i1;", b"i1;"]),
)  # fmt: skip


def nests(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    lists: st.SearchStrategy[Part] = st.lists(inner, max_size=4)
    mappings: st.SearchStrategy[Part] = st.dictionaries(st.text(max_size=3), inner, max_size=4)
    return lists | mappings


PARTS = st.dictionaries(st.text(max_size=3), st.recursive(LEAVES, nests, max_leaves=8), max_size=4)


def meaning(part: Part) -> object:
    """What a key has to tell apart, as nested tuples that Python compares."""
    match part:
        case bool() | int() | str() | bytes() | None:
            return type(part).__name__, part
        case float():
            return "float", "nan" if math.isnan(part) else struct.pack("<d", part)
        case Mapping():
            return "mapping", frozenset((name, meaning(value)) for name, value in part.items())
        case Sequence():
            return "sequence", tuple(map(meaning, part))


def reordered(part: Part) -> Part:
    """The same part with every mapping turned round, lists as tuples, and mappings of another type."""
    match part:
        case Mapping():
            return MappingProxyType({name: reordered(part[name]) for name in reversed(list(part))})
        case list():
            return tuple(map(reordered, part))
        case _:
            return part


@given(PARTS)
def test_the_order_of_a_mapping_does_not_matter(parts: dict[str, Part]) -> None:
    turned = {name: reordered(parts[name]) for name in reversed(list(parts))}
    assert content_key(turned) == content_key(parts)


@given(PARTS, PARTS)
def test_keys_are_equal_exactly_when_parts_are(one: dict[str, Part], other: dict[str, Part]) -> None:
    assert (content_key(one) == content_key(other)) == (meaning(one) == meaning(other))


@given(st.lists(LEAVES, min_size=2, max_size=6), st.data())
def test_the_way_items_are_grouped_matters(items: list[Part], data: st.DataObject) -> None:
    first, second = (data.draw(st.integers(0, len(items))) for _ in range(2))
    keys = {content_key({"x": [items[:cut], items[cut:]]}) for cut in (first, second)}
    assert len(keys) == len({first, second})


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, 1.0), (1, "1"), ("1", b"1"), (0.0, -0.0), (None, ""), ([], {}), ([], None),
     (["ab"], ["a", "b"]), ([["a"], "b"], ["a", ["b"]]),
     ({"a": "b"}, ["a", "b"]), (-1, 1)],
)  # fmt: skip
def test_values_that_look_alike_have_different_keys(one: Part, other: Part) -> None:
    assert content_key({"x": one}) != content_key({"x": other})


def test_enormous_numbers_have_keys() -> None:
    assert content_key({"x": 10**1_000_000}) != content_key({"x": 10**1_000_000 + 1})


def test_every_nan_has_one_key() -> None:
    negative = struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x00\x01")[0]
    assert content_key({"x": negative}) == content_key({"x": math.nan})


SAMPLE: dict[str, Part] = {
    "head_dim": 64,
    "scale": 0.125,
    "causal": True,
    "tile": [128, 64],
    "ir": "µ",
    "hex": b"\0",
}
SAMPLE_KEY = "cfbeae56546af500cddffdb54bbd5595e41eadeaa6ba9b059424e9728c7b390c"


def test_a_key_is_the_same_in_every_process_and_release() -> None:
    assert content_key(SAMPLE) == SAMPLE_KEY
    text = f"from attnlang.runtime.key import content_key\nprint(content_key({SAMPLE!r}))"
    for seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": seed,
            "PYTHONIOENCODING": "utf-8",
        }
        done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, check=True)
        assert done.stdout.decode().strip() == SAMPLE_KEY


def test_depth_is_no_obstacle() -> None:
    deep: Part = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert len(content_key({"x": deep})) == 64


WRONG: list[Any] = [object(), {1}, 1j, bytearray(b"a"), memoryview(b"a"), [object()], {"y": {2: "two"}}]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_other_values_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a kernel's key"):
        content_key({"x": wrong})


# The environment


def test_the_environment_names_what_a_kernel_depends_on() -> None:
    parts = environment_parts("cuda:90")
    assert sorted(parts) == [
        "attnlang", "attnlang_source", "cache_format", "platform", "python", "torch", "triton"
    ]  # fmt: skip
    assert parts["torch"] == importlib.metadata.version("torch")
    assert parts["triton"] == importlib.metadata.version("triton")
    assert parts == environment_parts("cuda:90")


def test_only_kernels_for_the_processor_depend_on_its_flags() -> None:
    assert environment_parts("cpu")["cpu_flags"]
    assert "cpu_flags" in environment_parts("cpu:x86-64-v4")
    for target in ("cuda:80", "hip:gfx942", "interpret", "eager"):
        assert "cpu_flags" not in environment_parts(target)


def test_asking_for_versions_imports_neither_torch_nor_triton() -> None:
    text = (
        "import sys\nfrom attnlang.runtime.key import environment_parts\nenvironment_parts('cpu')\n"
        "print(sorted({'torch', 'triton', 'sympy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["attnlang", "torch", "triton"])
def test_another_version_is_another_key(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    here, version = environment_parts("cpu"), importlib.metadata.version

    def patched(name: str) -> str:
        return "999.0" if name == package else version(name)

    monkeypatch.setattr(importlib.metadata, "version", patched)
    there = environment_parts("cpu")
    assert {name for name in here if here[name] != there[name]} == {package}
    assert content_key(here) != content_key(there)


def test_another_python_platform_format_or_processor_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [content_key(environment_parts("cpu"))]
    monkeypatch.setattr(key_module, "CACHE_FORMAT", 999)
    keys.append(content_key(environment_parts("cpu")))
    monkeypatch.setattr("sysconfig.get_platform", lambda: "linux-riscv64")
    keys.append(content_key(environment_parts("cpu")))
    monkeypatch.setattr(key_module, "cpu_flags", lambda: "fp sse")
    keys.append(content_key(environment_parts("cpu")))
    version = type("Version", (), {"major": 3, "minor": 99})
    monkeypatch.setattr(key_module.sys, "version_info", version)
    keys.append(content_key(environment_parts("cpu")))
    assert len(set(keys)) == 5


def test_a_package_under_another_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "pytorch-triton-rocm":
            return "3.5.1"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    parts = environment_parts("hip:gfx942")
    assert (parts["triton"], parts["torch"]) == ("3.5.1", "absent")


def test_changed_source_is_another_key(tmp_path: Path) -> None:
    """A checkout keeps its version number while its compiler changes."""
    package = tmp_path / "attnlang"
    (package / "runtime").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "runtime" / "__init__.py").touch()
    (package / "runtime" / "key.py").write_bytes((ROOT / "runtime" / "key.py").read_bytes())
    (tmp_path / "codegen").mkdir()
    (tmp_path / "codegen" / "printer.py").write_text("one")
    (package / "codegen").symlink_to("../codegen")
    text = "from attnlang.runtime.key import *\nprint(environment_parts('cuda:90')['attnlang_source'])"

    def digest() -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", text],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    before = digest()
    assert digest() == before
    (package / "notes.txt").write_text("no source")
    assert digest() == before
    (tmp_path / "codegen" / "printer.py").write_text("two")
    assert digest() != before


def test_flags_are_those_that_all_cores_share() -> None:
    assert (
        flags_of_listing("processor : 0\nflags\t\t: sse avx2 fma\n\nprocessor : 1\nflags\t\t: fma sse\n")
        == "fma sse"
    )
    assert flags_of_listing("processor : 0\nFeatures : fp asimd\n") == "asimd fp"
    assert flags_of_listing("processor : 0\n") == ""
