"""Files that commands write: whole or not at all, and clear words where they cannot be written."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from attnlang.errors import Diagnostic

NEW_FILE = 0o644


class FileCannotBeWritten(Diagnostic):
    """The file that a command writes cannot be written."""

    code = "E603"
    message = "'{file}' cannot be written: {reason}"


def write_file(path: Path, content: str | bytes) -> Path:
    """Write or replace a file in one step, its folder made, its permissions kept; a link stays a link.

    Raises FileCannotBeWritten.
    """
    data = content.encode() if isinstance(content, str) else content
    target = path.resolve()
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o7777 if target.exists() else NEW_FILE
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise FileCannotBeWritten(file=str(path), reason=error.strerror or str(error)) from None
    return path
