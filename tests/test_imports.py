"""Imports: from the folder of the file and below, each file once, no circles, every mistake at its statement."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnlang
from attnlang.errors import Diagnostics

MASKS = "def near(reach) = q - k < reach\n"
USES = 'import "masks.attn"\n\npattern uses(reach: int = 4):\n    mask causal and near(reach)\n'


def write(folder: Path, **files: str) -> Path:
    """The files, `sub__x` as `sub/x.attn`; the path of `main`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.attn"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "main.attn"


def reports(path: Path) -> list[tuple[str, str]]:
    """Code and text of every mistake."""
    with pytest.raises(Diagnostics) as caught:
        attnlang.load(path)
    return [(error.code, error.text) for error in caught.value.errors]


def test_an_import_brings_names_in_and_the_text_stands_alone(tmp_path: Path) -> None:
    pattern = attnlang.load(write(tmp_path, main=USES, masks=MASKS))
    assert pattern.mask(6, 6).sum() == 6 + 5 + 4 + 3
    assert str(pattern).count("import") == 0
    assert attnlang.parse(str(pattern)) == pattern


def test_an_import_of_imports_and_of_one_file_twice(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='import "sub/a.attn"\nimport "sub/b.attn"\npattern main():\n    mask first and second\n',
        sub__a='import "base.attn"\ndef first() = base\n',
        sub__b='import "base.attn"\ndef second() = not (base and k == 0)\n',
        sub__base="def base() = k <= q\n",
    )
    assert attnlang.load(main).mask(3, 3).int()[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_a_missing_file_is_reported_at_the_import(tmp_path: Path) -> None:
    main = write(tmp_path, main=USES)
    with pytest.raises(Diagnostics) as caught:
        attnlang.load(main)
    (error,) = caught.value.errors
    assert (error.code, error.text) == ("E101", f"there is no file '{tmp_path / 'masks.attn'}'")
    assert error.span is not None and error.span.line == 1


def test_mistakes_of_an_imported_file_are_its_own(tmp_path: Path) -> None:
    main = write(tmp_path, main=USES, masks="def near(reach) = q - k <\n")
    with pytest.raises(Diagnostics) as caught:
        attnlang.load(main)
    assert str(caught.value).startswith(f"{tmp_path / 'masks.attn'}:1:")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("../outside.attn", "an import stays in its folder and below"),
        ("sub/../../outside.attn", "an import stays in its folder and below"),
        ("/etc/passwd", 'write the path from this folder on, with slashes: "folder/file.attn"'),
        ("C:/x.attn", 'write the path from this folder on, with slashes: "folder/file.attn"'),
        ("link.attn", "a link on the way points outside"),
        ("folder/outside.attn", "a link on the way points outside"),
    ],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, path: str, advice: str) -> None:
    (tmp_path / "outside.attn").write_text(MASKS)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.attn").symlink_to(tmp_path / "outside.attn")
    (home / "folder").symlink_to(tmp_path, target_is_directory=True)
    main = write(home, main=USES.replace("masks.attn", path))
    with pytest.raises(Diagnostics) as caught:
        attnlang.load(main)
    (error,) = caught.value.errors
    assert (error.code, error.advice) == ("E250", advice)


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    main = write(tmp_path, main=USES, real=MASKS)
    (tmp_path / "masks.attn").symlink_to(tmp_path / "real.attn")
    assert attnlang.load(main).name == "uses"


def test_circles(tmp_path: Path) -> None:
    main = write(
        tmp_path, main='import "a.attn"\n' + USES, a='import "b.attn"\n', b='import "a.attn"\n', masks=MASKS
    )
    assert reports(main) == [("E251", "imports go in a circle: a.attn → b.attn → a.attn")]
    write(tmp_path, main='import "main.attn"\n' + USES)
    assert reports(main) == [("E251", "imports go in a circle: main.attn → main.attn")]


def test_chains_end(tmp_path: Path) -> None:
    files = {f"f{number}": f'import "f{number + 1}.attn"\n' for number in range(40)}
    main = write(tmp_path, main='import "f0.attn"\n', f40=MASKS, **files)
    assert reports(main) == [("E253", "imports are nested more than 32 deep")]


def test_names_that_clash(tmp_path: Path) -> None:
    main = write(tmp_path, main=USES + "def near(reach) = q < reach\n", masks=MASKS)
    assert reports(main) == [
        ("E254", f"'near' is defined in '{tmp_path / 'masks.attn'}' and again in '{main}'")
    ]


def test_an_imported_definition_keeps_the_standard_library_it_was_written_with(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main='import "masks.attn"\ndef window(n) = k < n\npattern main():\n    mask near(3) and window(2)\n',
        masks="def near(reach) = window(reach)\n",
    )
    assert reports(main) == [("E254", f"'window' is defined in 'the standard library' and again in '{main}'")]


def test_a_text_has_no_folder() -> None:
    with pytest.raises(Diagnostics) as caught:
        attnlang.parse(USES)
    assert [error.code for error in caught.value.errors] == ["E252"]


def test_imported_patterns_are_not_the_patterns_of_the_file(tmp_path: Path) -> None:
    main = write(tmp_path, main=USES, masks=MASKS + "pattern other():\n    mask causal\n")
    assert attnlang.load(main).name == "uses"
    assert list(attnlang.load_all(main)) == ["uses"]
