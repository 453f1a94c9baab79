"""Compile a pattern for a GPU that this machine does not have, and read what came out."""

from pathlib import Path

import attnlang

HERE = Path(__file__).parent


def main() -> None:
    pattern = attnlang.load(HERE / "alibi.attn")
    compiled = pattern.compile(target="cuda:90", head_dim=128, dtype="bf16")
    print(compiled.source)
    print(
        f"{compiled.registers} registers, {compiled.spills} spills, {compiled.shared} bytes of shared memory"
    )
    print(f"{len(compiled.ptx)} characters of PTX, {len(compiled.cubin)} bytes of cubin")


if __name__ == "__main__":
    main()
