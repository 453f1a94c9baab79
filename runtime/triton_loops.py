"""Innermost loops of machine code: which instructions a kernel repeats most.

A control-flow graph of basic blocks, its dominators, its natural loops. Works on NVIDIA SASS as cuobjdump
prints it and on AMD assembly as LLVM prints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SASS = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_CONDITION = re.compile(r"\bU?P\d")
_AMD_LABEL = re.compile(r"^(\.L\w+):")
_AMD = re.compile(r"^\s+([a-z][\w]*)(?:\s+([^;]*))?")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction. `target` is the index of the instruction it may jump to; `falls`: it may
    also continue with the next one."""

    opcode: str
    target: int | None
    falls: bool


def sass_instructions(sass: str) -> list[Instruction]:
    """The instructions of `cuobjdump -sass` in order; a target outside of the listing counts as none."""
    rows = [match for line in sass.splitlines() if (match := _SASS.match(line))]
    index = {int(row[1], 16): place for place, row in enumerate(rows)}
    result: list[Instruction] = []
    for row in rows:
        opcode, _, kind = row[3].partition(".")
        address = re.findall(r"0x([0-9a-f]+)", row[4]) if opcode == "BRA" else []
        target = index.get(int(address[-1], 16)) if address else None
        # BRA.U, BRA.DIV and their kind carry their condition in the operands
        conditional = (
            row[2] is not None or (opcode == "BRA" and bool(kind)) or bool(_CONDITION.search(row[4]))
        )
        leaves = opcode in ("BRA", "EXIT", "RET", "BRX", "KILL")
        result.append(Instruction(row[3], target, not leaves or conditional))
    return result


def amd_instructions(assembly: str) -> list[Instruction]:
    """The instructions of LLVM's AMD assembly in order."""
    rows: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in assembly.splitlines():
        if label := _AMD_LABEL.match(line):
            labels[label[1]] = len(rows)
        elif match := _AMD.match(line):
            rows.append((match[1], match[2] or ""))
    result: list[Instruction] = []
    for opcode, operands in rows:
        branch = opcode.startswith(("s_branch", "s_cbranch"))
        target = labels.get(operands.split()[-1]) if branch and operands.split() else None
        result.append(Instruction(opcode, target, opcode not in ("s_branch", "s_endpgm", "s_setpc_b64")))
    return result


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """The instructions of every natural loop that contains no other one; loops of one header are one."""
    if not code:
        return []
    blocks = _blocks(code)
    successors = _successors(code, blocks)
    dominators = _dominators(successors)
    bodies: dict[int, set[int]] = {}
    for block, following in enumerate(successors):
        for header in following:
            if header in dominators.get(block, set()):
                bodies.setdefault(header, {header}).update(_body(successors, header, block))
    inner = [body for head, body in bodies.items() if not any(o in body for o in bodies if o != head)]
    return [[code[place] for block in sorted(body) for place in range(*blocks[block])] for body in inner]


def _blocks(code: list[Instruction]) -> list[tuple[int, int]]:
    """Half-open ranges of instructions that are entered at the first and left at the last."""
    leaders = {0}
    for place, instruction in enumerate(code):
        if instruction.target is not None:
            leaders.add(instruction.target)
        if (instruction.target is not None or not instruction.falls) and place + 1 < len(code):
            leaders.add(place + 1)
    starts = sorted(place for place in leaders if place < len(code))
    return list(zip(starts, [*starts[1:], len(code)], strict=True))


def _successors(code: list[Instruction], blocks: list[tuple[int, int]]) -> list[list[int]]:
    number = {start: block for block, (start, _) in enumerate(blocks)}
    result: list[list[int]] = []
    for _, end in blocks:
        last = code[end - 1]
        reached = [number[end]] if last.falls and end in number else []
        if last.target is not None and last.target in number:
            reached.append(number[last.target])
        result.append(reached)
    return result


def _dominators(successors: list[list[int]]) -> dict[int, set[int]]:
    """For every block that block 0 reaches: the blocks on all ways to it, itself included."""
    order: list[int] = []
    seen, stack = {0}, [0]
    while stack:
        block = stack.pop()
        order.append(block)
        for following in successors[block]:
            if following not in seen:
                seen.add(following)
                stack.append(following)
    predecessors: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for following in successors[block]:
            predecessors[following].append(block)
    dominators = {block: set(order) for block in order}
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            common = set(order).intersection(*(dominators[before] for before in predecessors[block]))
            common.add(block)
            if common != dominators[block]:
                dominators[block], changed = common, True
    return dominators


def _body(successors: list[list[int]], header: int, tail: int) -> set[int]:
    """The blocks from which `tail` is reached without passing `header`."""
    predecessors: dict[int, list[int]] = {}
    for block, following in enumerate(successors):
        for target in following:
            predecessors.setdefault(target, []).append(block)
    body, stack = {header, tail}, [tail] if tail != header else []
    while stack:
        for before in predecessors.get(stack.pop(), []):
            if before not in body:
                body.add(before)
                stack.append(before)
    return body
