"""The manifest of a cache entry: what the entry holds, sealed so that any change of it shows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from .key import CACHE_FORMAT

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 16 << 20
NOTE_LIMIT = 1 << 20
FILES_LIMIT = 1000

KEY = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]{0,126}[A-Za-z0-9_+-])?")


class Damaged(Exception):
    """An entry on disk is not what was written there; the message says in which way."""


def check_names(key: str, files: Mapping[str, bytes]) -> None:
    """ValueError: `key` is not a digest, or a name in `files` is not a portable file name of its own."""
    if not KEY.fullmatch(key):
        raise ValueError(f"a cache key is 64 hexadecimal digits, not {key!r}")
    if len(files) > FILES_LIMIT:
        raise ValueError(f"a cache entry holds at most {FILES_LIMIT} files, not {len(files)}")
    folded = [name.casefold() for name in files]
    for name in files:
        if not _FILE_NAME.fullmatch(name) or name.casefold() == MANIFEST or folded.count(name.casefold()) > 1:
            raise ValueError(f"a cache entry cannot hold a file called {name!r}")


def plain_note(note: Mapping[str, JSON]) -> dict[str, JSON]:
    """`note` as reading it back would give it.

    TypeError, ValueError: it holds what JSON cannot write, or takes more than a mebibyte.
    """
    text = _dump(note)
    if len(text) > NOTE_LIMIT:
        raise ValueError(f"the note of a cache entry has {len(text)} bytes; {NOTE_LIMIT} are allowed")
    return cast("dict[str, JSON]", json.loads(text))


def manifest_bytes(key: str, files: Mapping[str, bytes], note: Mapping[str, JSON]) -> bytes:
    """The manifest of an entry, sealed with its own digest."""
    listing = {name: {"bytes": len(data), "sha256": digest_of(data)} for name, data in files.items()}
    body: dict[str, JSON] = {"format": CACHE_FORMAT, "key": key, "files": listing, "note": note}
    text = _dump(body)
    return f'{{"seal":"{digest_of(text.encode())}","body":{text}}}'.encode()


def parse_manifest(key: str, content: bytes) -> tuple[dict[str, tuple[int, str]], dict[str, JSON]]:
    """The size and digest of each file, and the note. Damaged: not a manifest written for `key`."""
    try:
        whole = json.loads(content)
        body = whole["body"]
        sealed = whole["seal"] == digest_of(_dump(body).encode())
        if not sealed or body["format"] != CACHE_FORMAT or body["key"] != key:
            raise Damaged(f"{MANIFEST} was altered")
        digests = {name: (int(about["bytes"]), str(about["sha256"])) for name, about in body["files"].items()}
        check_names(key, dict.fromkeys(digests, b""))
        return digests, dict(body["note"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} cannot be read") from error


def _dump(value: JSON) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return dict(cast("Mapping[str, object]", value))
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return list(cast("Sequence[object]", value))
        case _:
            raise TypeError(f"the note of a cache entry cannot hold a {type(value).__name__}")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
