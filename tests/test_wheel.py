"""What people install: one top-level package, with its data files, no matter how the checkout is laid out."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("attnlang", "grammar", "codegen", "runtime")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the checkout, built with the setuptools of this environment and no network."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in NEEDED:
        shutil.copy(ROOT / name, copy / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--wheel", "--no-isolation", "--outdir", str(copy / "dist")]
    build = [sys.executable, "-m", "build", *options, str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_only_attnlang_is_installed(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"attnlang"}


def test_every_file_of_the_checkout_is_in_the_wheel_once(wheel: zipfile.ZipFile) -> None:
    expected: set[str] = set()
    for folder in FOLDERS:
        prefix = "" if folder == "attnlang" else "attnlang/"
        for path in (ROOT / folder).rglob("*"):
            name = prefix + path.relative_to(ROOT).as_posix()
            linked = name.split("/")[1] in FOLDERS and folder == "attnlang"
            if path.is_file() and not linked and "__pycache__" not in name and not path.name.startswith("."):
                expected.add(name)
    inside = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert len(inside) == len(set(inside))
    assert set(inside) == expected


def test_the_command_and_the_licence_come_along(wheel: zipfile.ZipFile) -> None:
    (information,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "attnlang = attnlang.cli:main" in wheel.read(f"{information}/entry_points.txt").decode()
    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
