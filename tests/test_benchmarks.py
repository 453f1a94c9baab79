"""The GPU benchmark's own steps, at tiny sizes without a GPU, so that it never rots."""

import json
from pathlib import Path

from benchmarks import gpu


def test_checks_and_timings_are_written_with_their_machine(tmp_path: Path) -> None:
    code = gpu.main(["--quick", "--patterns", "causal", "alibi", "--output", str(tmp_path), "--seed", "3"])
    (result,) = tmp_path.glob("*.json")
    data = json.loads(result.read_text())
    assert code == 0
    assert {check["pattern"] for check in data["checks"]} == {"causal", "alibi"}
    assert all(check["passed"] and check["error"] > 0 for check in data["checks"])
    assert [row["pattern"] for row in data["timings"]] == list(gpu.TIMED)
    assert all(row["ratio"]["flex"] > 0 for row in data["timings"])
    assert data["machine"]["torch"] and data["machine"]["commit"]
