"""Pictures of masks: tiles counted rightly, files of every format, readable reports where that is not possible."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from attnlang.errors import AttnlangError
from attnlang.show import COLOURS, EMPTY, FULL, PARTIAL, TileCounts, draw_mask, tile_counts, tile_kinds


def window(rows: int, columns: int, size: int) -> np.ndarray:
    """Causal, the last `size` tokens; the queries are the last of the sequence."""
    q, k = np.arange(rows)[:, None] + columns - rows, np.arange(columns)[None]
    return (q >= k) & (q - k < size)


@pytest.mark.parametrize(("rows", "columns", "tile"), [(64, 64, 16), (50, 70, 16), (1, 33, 8), (7, 5, 64)])
def test_the_kind_of_every_tile_is_what_its_pairs_say(rows: int, columns: int, tile: int) -> None:
    mask = window(rows, columns, 20)
    kinds = tile_kinds(mask, tile)
    assert kinds.shape == (-(-rows // tile), -(-columns // tile))
    for i, j in np.ndindex(kinds.shape):
        part = mask[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile]
        assert kinds[i, j] == (FULL if part.all() else PARTIAL if part.any() else EMPTY)


def test_the_counts_cover_all_tiles() -> None:
    counts = tile_counts(window(64, 64, 64), 16)
    assert counts == TileCounts(full=6, partial=4, empty=6, density=65 / 128)


def colours_in(path: Path) -> set[tuple[int, ...]]:
    """The colours that cover more than a twentieth of a percent of a picture."""
    pixels = (imread(path)[..., :3] * 255).round().astype(np.int64).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {
        tuple(colour)
        for colour, count in zip(found.tolist(), counts, strict=True)
        if count > len(pixels) / 2000
    }


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def test_the_picture_has_the_colours_of_what_is_in_the_mask(tmp_path: Path) -> None:
    draw_mask(window(128, 128, 50), tmp_path / "both.png", tile=16)
    assert {rgb(COLOURS[row]) for row in (0, 2, 3, 5)} <= colours_in(tmp_path / "both.png")
    draw_mask(np.ones((64, 64), dtype=bool), tmp_path / "full.png", tile=16)
    assert rgb(COLOURS[5]) in colours_in(tmp_path / "full.png")
    assert rgb(COLOURS[2]) not in colours_in(tmp_path / "full.png")


def test_one_count_per_head_though_not_all_are_drawn(tmp_path: Path) -> None:
    masks = np.stack([window(32, 32, size) for size in range(1, 21)])
    counts = draw_mask(masks, tmp_path / "heads.png", title="twenty heads", tile=8)
    assert [count.density for count in counts] == [mask.mean() for mask in masks]
    wide = imread(tmp_path / "heads.png")
    assert wide.shape[0] > 1000 and wide.shape[1] > 1000


def test_a_long_mask_is_averaged_and_never_loses_a_thin_line(tmp_path: Path) -> None:
    mask = np.eye(3000, dtype=bool)
    draw_mask(mask, tmp_path / "line.png", tile=64)
    pixels = (imread(tmp_path / "line.png")[..., :3] * 255).round().astype(np.int64)
    darker_than_hidden = (pixels[..., 2] < rgb(COLOURS[2])[2] - 10) & (pixels[..., 0] > 200)
    assert darker_than_hidden.sum() > 300


def test_every_format_and_the_same_bytes_twice(tmp_path: Path) -> None:
    for suffix, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
        for path in (first, second):
            draw_mask(window(32, 32, 8), path, title="a < b & c", tile=8)
        assert first.read_bytes().startswith(start)
        assert first.read_bytes() == second.read_bytes()


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("mask.jpeg", "mask", "mask.pgn"):
        with pytest.raises(AttnlangError, match=r"E601.*has no suffix of a picture"):
            draw_mask(window(8, 8, 8), tmp_path / name)
    with pytest.raises(AttnlangError, match=r"did you mean \.png\?"):
        draw_mask(window(8, 8, 8), tmp_path / "mask.pgn")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AttnlangError, match="E602"):
        draw_mask(window(8, 8, 8), tmp_path / "file" / "mask.png")


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    for mask in (np.ones(4), np.ones((2, 2, 2, 2)), np.ones((0, 4))):
        with pytest.raises(ValueError, match="a mask to draw"):
            draw_mask(mask, tmp_path / "mask.png")
