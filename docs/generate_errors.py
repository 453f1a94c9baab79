"""Writes docs/errors.md from docs/errors.toml: every code, its meaning, a wrong text, its report, the right text.

The wrong texts are run and must give their code; the right ones are run and must give no error.
"""

from __future__ import annotations

import os
import pkgutil
import string
import tempfile
import tomllib
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any

import attnlang
from attnlang.errors import AttnlangError, Diagnostic, Diagnostics

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "errors.md"
SECTIONS = {
    "E1": "Reading and grammar",
    "E20": "Names, types and axes",
    "E25": "Imports",
    "E26": "Python functions",
    "E27": "Claims",
    "E28": "FlexAttention",
    "E3": "The arguments of a call",
    "E4": "What has no kernel yet",
    "E5": "The machine",
    "E6": "The command line",
}
PREFACE = """\
# Errors

Made by `docs/generate_errors.py` from `docs/errors.toml`, by running every example. Codes tell the stage: E1 reading
and grammar, E2 names, types and axes, E3 the arguments of a call, E4 what has no kernel yet, E5 the machine, E6 the
command line. All mistakes of a file, and all of a call, are reported at once. In Python an error is an
`attnlang.AttnlangError`; `attnlang check --json` gives code, message, hint, line and column to programs.

In the Python examples `q`, `k`, `v` are random tensors `[1, 2, 16, 8]`.
"""


def codes() -> dict[str, type[Diagnostic]]:
    """Every code by name, after every module that declares some has been loaded."""
    for module in pkgutil.walk_packages(attnlang.__path__, "attnlang."):
        if not module.name.endswith(("__main__", "demo")):
            import_module(module.name)
    known = sorted(Diagnostic.registry.items())
    return {code: kind for code, kind in known if kind.__module__.startswith("attnlang")}


def page() -> str:
    """The page as it should be."""
    entries: dict[str, dict[str, str]] = tomllib.loads((DOCS / "errors.toml").read_text(encoding="utf-8"))
    known = codes()
    surplus = sorted(set(entries) - set(known))
    if surplus:
        raise SystemExit(f"docs/errors.toml explains codes that do not exist: {', '.join(surplus)}")
    parts, section = [PREFACE], ""
    for code, kind in known.items():
        here = next(title for prefix, title in reversed(SECTIONS.items()) if _belongs(code, prefix))
        if here != section:
            parts.append(f"\n## {here}\n")
            section = here
        parts.append(_entry(code, kind, entries.get(code, {})))
    return "".join(parts)


def _belongs(code: str, prefix: str) -> bool:
    return code.startswith(prefix) or (prefix == "E20" and code[:3] in ("E21", "E22", "E23", "E24"))


def _entry(code: str, kind: type[Diagnostic], entry: dict[str, str]) -> str:
    means = entry.get("means") or (kind.__doc__ or "").strip().split("\n")[0]
    text = f"\n### {code}: {_title(kind)}\n\n{means}\n"
    for key, language, run in (
        ("wrong", "attn", report_of_text),
        ("wrong_python", "python", report_of_python),
    ):
        if key not in entry:
            continue
        wrong, right = entry[key].lstrip("\n"), entry[key.replace("wrong", "right")].lstrip("\n")
        report = run(wrong)
        if f"error[{code}]" not in report:
            raise SystemExit(f"{code}: the wrong example gives another report:\n{report or 'none'}")
        if unwanted := run(right):
            raise SystemExit(f"{code}: the right example gives a report:\n{unwanted}")
        text += f"\nWrong:\n\n```{language} wrong\n{wrong}```\n\n```text\n{report}\n```\n"
        text += f"\nRight:\n\n```{language}\n{right}```\n"
    if "```" not in text:
        text += f"\n```text\n{_template(code, kind)}\n```\n"
    return text


def _title(kind: type[Diagnostic]) -> str:
    """`UnknownName` as `unknown name`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).strip()


def _template(code: str, kind: type[Diagnostic]) -> str:
    """The message with its fields as words."""
    parts = [f"error[{code}]: {_words(kind.message)}"]
    return "\n  ".join([*parts, _words(kind.hint)] if kind.hint else parts)


def _words(template: str) -> str:
    fields = string.Formatter().parse(template)
    return "".join(text + (f"<{name}>" if name is not None else "") for text, name, _, _ in fields)


def report_of_text(text: str) -> str:
    """What `attnlang.parse` says about a text; nothing where it is right."""
    try:
        attnlang.parse(text)
    except (Diagnostic, Diagnostics) as error:
        return str(error).replace("<text>:", "example.attn:")
    return ""


def report_of_python(text: str) -> str:
    """What running some Python gives; nothing where it is right."""
    import torch

    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 16, 8, generator=make) for _ in range(3))
    names: dict[str, Any] = {"attnlang": attnlang, "torch": torch, "Path": Path, "q": q, "k": k, "v": v}
    names |= {
        "attention_pattern": attnlang.attention_pattern,
        "Tensor": attnlang.Tensor,
        "__name__": "example",
    }
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("example.py").write_text(text, encoding="utf-8")
        try:
            exec(compile(text, "example.py", "exec"), names)
        except AttnlangError as error:
            return str(error).replace(folder + os.sep, "")
    return ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
