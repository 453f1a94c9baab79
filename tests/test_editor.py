"""The highlighting for editors: files that load, patterns that match, and the same words as the grammar."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "editor" / "vscode"
GRAMMAR = CODE / "syntaxes" / "attn.tmLanguage.json"
VIM = ROOT / "editor" / "vim" / "syntax" / "attn.vim"

TEXT = """\
# Longformer: a window
pattern longformer(radius: int = 256):
    "a docstring"
    tensor is_global[b, n]: bool
    sparsity abs(q - k) <= radius or is_global[b, q]
    score Q[q] @ K[k] * scale if true else 1.5e-3 - 65_536
    let step = 2
    step S = S
"""


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def rules(node: object) -> list[dict[str, Any]]:
    """Every rule with a regular expression in a TextMate grammar, in its order."""
    match node:
        case dict():
            own = [node] if "match" in node or "begin" in node else []
            return own + [rule for child in node.values() for rule in rules(child)]
        case list():
            return [rule for child in node for rule in rules(child)]
        case _:
            return []


def words(text: str) -> set[str]:
    """The words of the alternations `(a|b|c)` in regular expressions, those of Vim included."""
    groups = re.findall(r"\(((?:[A-Za-z]+(?:\\?\|))+[A-Za-z]+)\\?\)", text)
    return {word for group in groups for word in re.findall(r"[A-Za-z]+", group)}


def textmate_words() -> set[str]:
    return {word for rule in rules(load(GRAMMAR)) for word in words(str(rule))}


def vim_words() -> set[str]:
    text = VIM.read_text(encoding="utf-8")
    keywords = re.findall(r"^syntax keyword attn\w+ (.+)$", text, re.MULTILINE)
    return words(text) | {word for line in keywords for word in line.split()}


def scopes(line: str) -> dict[str, str]:
    """Word -> scope, by the first rule that matches leftmost, as an editor does for a line."""
    grammar = load(GRAMMAR)
    groups = [grammar["repository"][entry["include"][1:]] for entry in grammar["patterns"]]
    ordered = [rule for group in groups for rule in rules(group)]
    found: dict[str, str] = {}
    position = 0
    while position < len(line):
        hits = [(hit.start(), i) for i, r in enumerate(ordered) if (hit := hit_of(r, line, position))]
        if not hits:
            break
        rule = ordered[min(hits)[1]]
        hit = hit_of(rule, line, position)
        assert hit is not None
        captures: dict[str, Any] = rule.get("captures", {"0": rule})
        found |= {hit[int(group)].strip(): entry["name"] for group, entry in captures.items()}
        position = max(hit.end(), position + 1)
    return found


def hit_of(rule: dict[str, Any], line: str, position: int) -> re.Match[str] | None:
    return re.compile(rule.get("match") or rule["begin"]).search(line, position)


def test_the_extension_names_files_that_are_there() -> None:
    contributed = load(CODE / "package.json")["contributes"]
    (language,), (grammar,) = contributed["languages"], contributed["grammars"]
    assert language["extensions"] == [".attn"]
    assert load(CODE / language["configuration"])["comments"]["lineComment"] == "#"
    assert load(CODE / grammar["path"])["scopeName"] == grammar["scopeName"]


def test_the_grammar_includes_what_it_has() -> None:
    grammar = load(GRAMMAR)
    included = {entry["include"] for entry in grammar["patterns"]}
    assert included == {f"#{name}" for name in grammar["repository"]}


def test_both_editors_know_the_same_words() -> None:
    assert textmate_words() == vim_words()
    assert {"pattern", "sparsity", "where", "mod", "float", "NQ", "true", "scale"} <= vim_words()


def test_the_words_are_those_of_the_grammar() -> None:
    text = (ROOT / "grammar" / "attn.lark").read_text(encoding="utf-8")
    terminals = re.findall(r"^[A-Z_.0-9]+:\s+/\(?([A-Za-z|]+)\)?\\b/$", text, re.MULTILINE)
    keywords = {word for terminal in terminals for word in terminal.split("|")}
    assert {"pattern", "mask", "where", "mod", "true"} <= keywords, "this reads keywords as `NAME: /word\\b/`"
    assert keywords - vim_words() == set(), "teach both files in editor/ the new words"


@pytest.mark.parametrize(
    ("line", "word", "scope"),
    [
        (0, "# Longformer: a window", "comment.line.number-sign.attn"),
        (1, "pattern", "keyword.declaration.attn"),
        (1, "longformer", "entity.name.function.attn"),
        (1, "int", "storage.type.attn"),
        (1, "256", "constant.numeric.attn"),
        (2, '"a docstring"', "string.quoted.double.attn"),
        (3, "tensor", "keyword.declaration.attn"),
        (3, "bool", "storage.type.attn"),
        (4, "sparsity", "keyword.control.section.attn"),
        (4, "abs", "entity.name.function.call.attn"),
        (4, "or", "keyword.operator.word.attn"),
        (4, "<=", "keyword.operator.attn"),
        (5, "Q", "variable.language.tensor.attn"),
        (5, "scale", "variable.language.attn"),
        (5, "if", "keyword.control.attn"),
        (5, "true", "constant.language.attn"),
        (5, "1.5e-3", "constant.numeric.attn"),
        (5, "65_536", "constant.numeric.attn"),
        (6, "step", "entity.name.function.attn"),
        (7, "step", "keyword.control.section.attn"),
    ],
)
def test_what_is_coloured_how(line: int, word: str, scope: str) -> None:
    assert scopes(TEXT.splitlines()[line])[word] == scope
