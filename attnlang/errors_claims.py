"""What can be wrong with an `assert`: it does not hold, or it cannot be asked of its pattern. Codes E27."""

from __future__ import annotations

from attnlang.errors import Diagnostic


class ClaimRefuted(Diagnostic):
    code = "E270"
    message = "'{claim}' does not hold for '{pattern}': {found}"
    hint = "{call}"


class ClaimNotMeant(Diagnostic):
    code = "E271"
    message = "'{claim}' cannot be asked of '{pattern}': {reason}"
