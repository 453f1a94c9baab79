"""`attnlang show`: panels for branches and heads, tiles at scale, the keys of one query; files and clear errors."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import attnlang
from attnlang import show
from attnlang.samples import random_tensors
from attnlang.show import Keys, draw_keys
from attnlang.show_colours import COLOURS, QUERY, TileCounts, percent, rgb
from tests.command_line import Outcome, Run, runner
from tests.docs_pages import DOCS, ROOT, blocks
from tests.test_show import colours_in

TWO = """\
pattern two(window: int >= 1 = 8, block: int >= 1 = 16):
    mask causal
    blocks c of k by block
    let KC[c] = mean(K[k] for k in c)
    let VC[c] = mean(V[k] for k in c)
    branch coarse over c:
        mask  c < block(q)
        score Q[q] @ KC[c] * scale
        value VC[c]
    branch near:
        sparsity window(window * (1 + h // 2))
    output coarse + near
"""
IMAGE = """\
pattern image(height: int >= 1, width: int >= 1):
    grid q, k as (y: height, x: width)
    sparsity abs(q.y - k.y) <= 1 and abs(q.x - k.x) <= 2
"""
VIDEO = """\
pattern video(frames: int >= 1, height: int >= 1, width: int >= 1):
    grid q, k as (t: frames, y: height, x: width)
    sparsity q.t - k.t <= 1 and k.t <= q.t and q.y == k.y
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`attnlang …` in a folder with a few patterns."""
    for name, text in (("two", TWO), ("image", IMAGE), ("video", VIDEO)):
        (tmp_path / f"{name}.attn").write_text(text)
    return runner(capsys, tmp_path, monkeypatch)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every panel that is written, and the words around them."""
    written: list[Any] = []
    write = show.write_panels

    def keeping(drawn: Any, path: Path, **words: Any) -> None:
        written.append((drawn, words))
        write(drawn, path, **words)

    monkeypatch.setattr(show, "write_panels", keeping)
    return written


def lines(done: Outcome) -> list[str]:
    """What was printed of a command that succeeded."""
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


# ---------------------------------------------------------------------------------------- branches and heads


def test_a_panel_for_each_branch_and_for_heads_that_differ(run: Run, panels: list[Any]) -> None:
    told = lines(run("show", "two.attn", "-n", "64", "--heads", "4", "--tiles", "16", "-o", "two.png"))
    assert told == [
        "coarse: all 4 heads: 0 full, 3 partial, 1 empty tiles of 16 × 16, 37.50% of the pairs visible",
        "near: heads 0–1: 0 full, 7 partial, 9 empty tiles of 16 × 16, 11.82% of the pairs visible",
        "near: heads 2–3: 0 full, 7 partial, 9 empty tiles of 16 × 16, 22.07% of the pairs visible",
        "two.png",
    ]
    ((drawn, words),) = panels
    shapes = [(panel.rows, panel.columns, panel.x, panel.y) for panel in drawn]
    assert shapes == [(64, 4, "group c", "query q"), *[(64, 64, "key k", "query q")] * 2]
    assert [panel.title.split("\n")[0] for panel in drawn] == [
        "coarse: all 4 heads: 64 × 4", "near: heads 0–1: 64 × 64", "near: heads 2–3: 64 × 64",
    ]  # fmt: skip
    assert words["title"] == "two(window=8, block=16)\ntiles of 16 × 16"


def test_one_branch_and_one_head(run: Run, panels: list[Any]) -> None:
    words = ("show", "two.attn", "-n", "64", "--heads", "4", "--branch", "near", "--head", "3", "-o", "m.svg")
    assert lines(run(*words))[0].startswith("near: head 3: ")
    ((drawn, _),) = panels
    assert len(drawn) == 1 and drawn[0].title.startswith("near: head 3\n")


def test_queries_that_are_the_last_of_the_sequence(run: Run, panels: list[Any]) -> None:
    lines(run("show", "near.attn", "-n", "64", "--nq", "16", "-o", "m.png"))
    ((drawn, _),) = panels
    assert (drawn[0].rows, drawn[0].columns, drawn[0].top) == (16, 64, 48)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize(
    "words",
    [
        ("two.attn", "-n", "64", "--heads", "3"),
        ("near.attn", "-n", "64k"),
        ("near.attn", "-n", "600", "--query", "300"),
        ("video.attn", "-n", "60", "-p", "frames=3", "-p", "height=4", "-p", "width=5", "--query", "27"),
    ],
)
def test_the_same_picture_is_the_same_file(
    run: Run, tmp_path: Path, words: tuple[str, ...], suffix: str
) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    for path in (first, second):
        lines(run("show", *words, "-o", path.name))
    assert first.read_bytes() == second.read_bytes()


def test_a_sequence_of_the_batch_has_tensors_of_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "packed.attn").write_text(
        "pattern packed():\n    tensor ids[b, n]: int\n    mask document(ids)\n"
    )
    pattern = attnlang.load(tmp_path / "packed.attn")
    ids = random_tensors(pattern.ir, {"B": 3, "NQ": 64, "NK": 64}, seed=0)["ids"]
    shares = pattern.mask(64, 64, batch=3, ids=ids).float().mean(dim=(1, 2, 3)).tolist()
    assert len(set(shares)) == 3
    for batch, share in enumerate(shares):
        told = lines(run("show", "packed.attn", "-n", "64", "--batch", str(batch), "-o", "m.svg"))
        assert told[0].endswith(f"{share:.2%} of the pairs visible")


# ------------------------------------------------------------------------------------------------- at scale


def test_long_sequences_are_drawn_by_their_tiles(run: Run, tmp_path: Path, panels: list[Any]) -> None:
    told = lines(run("show", "near.attn", "-n", "1M", "-p", "window=4096", "-o", "near.png"))
    rows, reach = (
        1 << 14,
        4096 // 64,
    )  # tiles before the diagonal one that a row of tiles meets; the first is cut
    full, partial = sum(min(row, reach - 1) for row in range(rows)), rows + rows - reach
    empty = rows * rows - full - partial
    counts = f"{full:,} full, {partial:,} partial, {empty:,} empty tiles of 64 × 64"
    assert told[0] == f"{counts}, 0.4% of the pairs visible"
    ((drawn, words),) = panels
    assert drawn[0].pixels.shape == (1024, 1024, 3) and drawn[0].rows == 1 << 20
    assert words["caption"] == (
        "Tiles are classified from the predicate, not drawn from its pairs. "
        "A pixel is 16 × 16 tiles: the mean of their colours, at least half as strong."
    )
    assert [label for _, label in words["legend"]] == [
        "full tile: no mask needed", "partial tile: a mask inside", "empty tile: never computed",
    ]  # fmt: skip
    assert rgb(COLOURS[0]) in colours_in(tmp_path / "near.png")


def test_tiles_at_scale_are_those_of_the_pairs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("show", "two.attn", "-n", "256", "--heads", "4", "--tiles", "16", "-o", "two.png")
    exact = [line.split(" tiles")[0] for line in lines(run(*words))]
    monkeypatch.setattr("attnlang.cli_show.MOST_PAIRS", 0)
    assert [line.split(" tiles")[0] for line in lines(run(*words))] == exact


def test_choices_at_scale_are_said_to_be_unknown(run: Run, tmp_path: Path, panels: list[Any]) -> None:
    (tmp_path / "best.attn").write_text(
        "pattern best():\n    mask causal\n    select near[q] = top(2) k by Q[q] @ K[k]\n    sparsity near(q, k)\n"
    )
    assert lines(run("show", "best.attn", "-n", "8k", "-o", "best.png"))[0].startswith(
        "0 full, 8,256 partial"
    )
    ((_, words),) = panels
    assert words["caption"].startswith(
        "What queries and keys choose is not looked at here: such tiles count as"
    )


def test_bounds_are_not_more_exact_than_they_are() -> None:
    assert TileCounts(1, 2, 3, 0.0, 0.0156).visible == "0.0% to 1.6% of the pairs visible"
    assert TileCounts(1, 2, 3, 0.49999, 0.50001).visible == "50.0% of the pairs visible"
    assert [percent(share) for share in (0, 1, 0.125, 0.0005, 0.00001, 0.99999)] == [
        "0.0%", "100.0%", "12.5%", "0.05%", "0.001%", ">99.99%",
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------- queries


def test_the_keys_of_a_query_on_the_image(run: Run, tmp_path: Path, panels: list[Any]) -> None:
    words = (
        "show",
        "image.attn",
        "-n",
        "80",
        "-p",
        "height=8",
        "-p",
        "width=10",
        "--query",
        "34",
        "-o",
        "q.png",
    )
    assert lines(run(*words)) == ["15 of 80 visible, on a grid of 8 × 10", "q.png"]
    ((drawn, _),) = panels
    (panel,) = drawn
    assert (panel.rows, panel.columns, panel.mark) == (8, 10, (3, 4))
    expected = np.zeros((8, 10), np.bool_)
    expected[2:5, 2:7] = True
    assert (panel.pixels == rgb(COLOURS[5])).all(axis=2).tolist() == expected.tolist()
    assert {rgb(COLOURS[5]), rgb(COLOURS[0]), rgb(QUERY)} <= colours_in(tmp_path / "q.png")


def test_a_panel_for_each_frame(run: Run, panels: list[Any]) -> None:
    given = ("-p", "frames=5", "-p", "height=3", "-p", "width=4", "--query", "30", "-o", "q.png")
    told = lines(run("show", "video.attn", "-n", "60", *given))
    assert told == ["8 of 60 visible, on a grid of 5 × 3 × 4", "q.png"]
    ((drawn, words),) = panels
    assert [panel.title for panel in drawn] == [
        f"frame {t}\n{4 if t in (1, 2) else 0} visible" for t in range(5)
    ]
    assert [panel.mark for panel in drawn] == [None, None, (1, 2), None, None]
    assert words["caption"] == "8 of 60 visible, on a grid of 5 × 3 × 4."


def test_too_many_frames_are_those_around_the_query(tmp_path: Path, panels: list[Any]) -> None:
    seen = np.zeros(100 * 4, np.bool_)
    seen[[0, 200, 399]] = True
    draw_keys([Keys("", seen, (100, 2, 2), 201)], tmp_path / "q.png")
    ((drawn, words),) = panels
    assert [drawn[0].title, drawn[-1].title] == ["frame 32\n0 visible", "frame 67\n0 visible"]
    assert drawn[18].mark == (0, 1)
    assert words["caption"].endswith("Frames 32 to 67 of 100; 2 visible keys lie outside.")


def test_a_strip_and_lines_of_a_long_sequence(run: Run, panels: list[Any]) -> None:
    assert lines(run("show", "near.attn", "-n", "64", "--query", "20", "-o", "q.svg")) == [
        "8 of 64 visible",
        "q.svg",
    ]
    lines(run("show", "near.attn", "-n", "64k", "--query", "5000", "-p", "window=300", "-o", "q.png"))
    (((strip,), _), ((text,), words)) = panels
    assert (strip.rows, strip.columns, strip.mark) == (1, 64, (0, 20))
    assert np.flatnonzero((strip.pixels == rgb(COLOURS[5])).all(axis=2)[0]).tolist() == list(range(13, 21))
    assert (text.rows, text.columns, text.mark) == (256, 256, divmod(5000, 256))
    assert text.row_labels[1] == (32, "8,192")
    assert int((text.pixels == rgb(COLOURS[5])).all(axis=2).sum()) == 300
    assert words["caption"] == "The sequence runs like lines of 256."


def test_a_grid_that_is_given(run: Run, panels: list[Any]) -> None:
    told = lines(run("show", "near.attn", "-n", "60", "--query", "20", "--grid", "6x10", "-o", "q.png"))
    assert told[0] == "8 of 60 visible, on a grid of 6 × 10"
    assert panels[0][0][0].mark == (2, 0)


def test_a_query_in_every_branch(run: Run, panels: list[Any]) -> None:
    told = lines(run("show", "two.attn", "-n", "64", "--heads", "4", "--query", "40", "-o", "q.png"))
    assert told[:-1] == [
        "coarse: all 4 heads: 2 of 4 visible",
        "near: heads 0–1: 8 of 64 visible",
        "near: heads 2–3: 16 of 64 visible",
    ]
    ((drawn, _),) = panels
    assert [panel.mark for panel in drawn] == [None, (0, 40), (0, 40)]


def test_pixels_that_stand_for_several_keys_keep_a_single_one(tmp_path: Path, panels: list[Any]) -> None:
    seen = np.zeros(1 << 22, np.bool_)
    seen[123_457] = True
    draw_keys([Keys("", seen, (1 << 22,), None)], tmp_path / "q.png")
    ((drawn, words),) = panels
    assert int((drawn[0].pixels == rgb(COLOURS[5])).all(axis=2).sum()) == 1
    assert (
        words["caption"]
        == "The sequence runs like lines of 2,048. A pixel is 4 × 4 keys, coloured where any is visible."
    )
    assert imread(tmp_path / "q.png").shape[0] > 500


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("two.attn", "--branch", "nera", "-o", "m.png"), "'two' has no attention of that name; did you mean 'near'?"),
        (("near.attn", "--branch", "x", "-o", "m.png"), "'near' has no attention of that name; it has attention"),
        (("near.attn", "-n", "64", "--query", "64", "-o", "m.png"), "the queries stand at the positions 0 to 63"),
        (("near.attn", "-n", "64", "--nq", "8", "--query", "3", "-o", "m.png"), "at the positions 56 to 63"),
        (("near.attn", "-n", "64", "--query", "3", "--grid", "5x5", "-o", "m.png"),
         "--grid 5 × 5 has 25 places, and there are 64 keys"),
        (("near.attn", "--query", "3", "--grid", "5by5", "-o", "m.png"), "'5by5' is no grid (as in 64x64 or 8x16x16)"),
        (("near.attn", "--grid", "8x8", "-o", "m.png"), "give --query too"),
        (("near.attn", "--query", "3", "--html", "m.html"), "--query draws a picture: say where with -o"),
        (("near.attn", "-n", "4k", "--html", "m.html"), "--html shows at most 2,048 × 2,048 pairs: try a smaller -n"),
        (("near.attn",), "-o/--output (a picture) or --html (a page)"),
        (("near.attn", "--heads", "2", "--head", "2", "-o", "m.png"), "there are 2 heads, 0 to 1"),
    ],
)  # fmt: skip
def test_wrong_usage(run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run("show", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not (tmp_path / "m.png").exists() and not (tmp_path / "m.html").exists()


def test_a_pattern_without_queries_as_rows_has_no_query(run: Run, tmp_path: Path) -> None:
    (tmp_path / "agents.attn").write_text(
        "pattern agents(m: int >= 1 = 4):\n    tensor a[b, h, m, d]\n    branch gathered[i in m]:\n"
        "        score a[b, h, i] @ K[k]\n    branch told over i in m:\n        score Q[q] @ a[b, h, i]\n"
        "        value gathered[i]\n    output told\n"
    )
    assert run("check", "agents.attn").code == 0
    done = run("show", "agents.attn", "-n", "16", "--branch", "gathered", "--query", "3", "-o", "m.png")
    assert (done.code, "no attention of 'agents' that is drawn has queries as its rows" in done.err) == (
        2,
        True,
    )
    assert (
        lines(run("show", "agents.attn", "-n", "16", "--query", "3", "-o", "m.png"))[0]
        == "told: 4 of 4 visible"
    )


# ----------------------------------------------------------------------------------------------------- docs


def test_the_commands_and_the_python_of_the_docs_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("docs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    page = DOCS / "show.md"
    commands = [
        shlex.split(line)
        for block in blocks("sh", [page])
        for line in block.text.splitlines()
        if line.strip()
    ]
    assert len(commands) == 5
    for command in commands:
        assert command[0] == "attnlang"
        assert lines(run(*command[1:]))[-1] == command[-1]
        assert (tmp_path / command[-1]).stat().st_size > 10_000
    (code,) = blocks("python", [page])
    capsys.readouterr()
    exec(compile(code.text, "show.md", "exec"), {})
    assert code.text.rstrip().endswith(capsys.readouterr().out.strip())
