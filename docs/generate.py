"""Renews every page that is made from the code: `python docs/generate.py`, with attnlang installed."""

from __future__ import annotations

import generate_errors
import generate_prelude
import generate_system
import generate_tour

if __name__ == "__main__":
    for maker in (generate_prelude, generate_system, generate_errors, generate_tour):
        maker.PAGE.write_text(maker.page(), encoding="utf-8")
        print(maker.PAGE.name)
