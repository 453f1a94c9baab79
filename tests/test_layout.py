"""The shape of the house, kept by reading every file: who imports whom, which library lives where."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("grammar", "codegen", "runtime")
EVERYONE = {"errors", "source", "settings", "shapes", "watch"}

# Room -> the rooms it may import, besides itself. Imports go down, and siblings never see one another.
# A module `attnlang/<room>_<more>.py` belongs to the room <room>; `attnlang/__init__.py` is the door.
MAY_IMPORT: dict[str, set[str]] = {
    "source": set(),
    "errors": {"source"},
    "settings": {"errors"},
    "watch": {"errors", "settings"},
    "shapes": {"errors", "source"},
    "syntax": {"errors", "source"},
    "artifact": EVERYONE,
    "ir": EVERYONE,
    "grammar": EVERYONE | {"syntax"},
    "elaborate": EVERYONE | {"syntax", "ir"},
    "targets": EVERYONE,
    "passes": EVERYONE | {"ir", "targets"},
    "codegen": EVERYONE | {"ir", "artifact"},
    "runtime": EVERYONE | {"artifact"},
    "call": EVERYONE | {"ir"},
    "execute": EVERYONE | {"artifact", "ir", "targets", "passes", "codegen", "runtime"},
    "planning": EVERYONE
    | {"artifact", "ir", "targets", "call", "passes", "codegen", "runtime", "execute", "liveness"},
    "samples": EVERYONE | {"ir", "call"},
    "claims": EVERYONE | {"ir", "call", "passes", "samples"},
    "liveness": EVERYONE | {"ir", "call", "passes"},
    "flex": EVERYONE | {"ir", "call", "passes", "liveness"},
    "compiler": EVERYONE
    | {"syntax", "artifact", "ir", "targets", "call", "grammar", "elaborate", "passes", "codegen", "runtime"}
    | {"execute", "planning"},
    "pattern": EVERYONE
    | {"syntax", "artifact", "ir", "call", "execute", "planning", "claims", "compiler", "liveness", "flex"},
    "decorator": EVERYONE | {"syntax", "pattern", "compiler"},
    "flex_import": EVERYONE | {"syntax", "call", "pattern", "decorator"},
    "show": EVERYONE | {"ir", "call", "passes"},
    "bench": EVERYONE | {"ir", "call", "flex", "pattern"},
    "door": EVERYONE | {"pattern", "decorator", "compiler", "flex_import"},
    "demo": EVERYONE | {"door", "artifact", "ir", "pattern", "compiler", "show"},
    "cli": EVERYONE
    | {"door", "syntax", "artifact", "ir", "call", "samples", "claims", "targets", "planning", "execute"}
    | {"pattern", "decorator", "compiler", "show", "demo", "bench"},
    "__main__": {"cli"},
}


@dataclass(frozen=True)
class Home:
    """The files that may name a library: at their top, or only inside a function, for when it is used."""

    top: tuple[str, ...]
    inside: tuple[str, ...] = ()


LIBRARIES: dict[str, Home] = {
    "lark": Home(top=("grammar/*",)),
    "torch": Home(
        top=(
            "runtime/*",
            "attnlang/ir/interpret*",
            "attnlang/ir/scalar.py",
            "attnlang/ir/thresholds.py",
            "attnlang/claims_*",
            "attnlang/demo.py",
            "attnlang/flex*",
            "attnlang/bench*",
        ),
        inside=(
            "attnlang/call*",
            "attnlang/pattern*",
            "attnlang/compiler*",
            "attnlang/execute*",
            "attnlang/cli*",
            "attnlang/show*",
            "attnlang/claims.py",
            "attnlang/samples.py",
        ),
    ),
    "numpy": Home(
        top=(
            "runtime/*",
            "attnlang/ir/interpret*",
            "attnlang/passes/*",
            "attnlang/show*",
            "attnlang/demo.py",
            "attnlang/liveness.py",
            "attnlang/flex_blocks.py",
        ),
        inside=("attnlang/call_arrays.py",),
    ),
    "triton": Home(top=("runtime/*",)),
    "matplotlib": Home(top=("attnlang/show*",)),
    "rich": Home(top=("attnlang/cli*", "attnlang/demo.py")),
    "platformdirs": Home(top=("runtime/*",)),
    "filelock": Home(top=("runtime/*",)),
}

ENVIRONMENT_READERS = ("attnlang/settings.py", "attnlang/compiler*", "attnlang/cli*", "attnlang/demo.py")
FORBIDDEN_NAMES = {"triton.py", "types.py", "ast.py"}  # such a file hides the real module from its neighbours
LONGEST_FILE = 500
GENERATED = ("tests/golden/", "tests/fixtures/")  # what the compiler writes, under rules of its own
HEAVY = ("torch", "triton", "sympy", "lark", "numpy", "networkx", "matplotlib", "rich")

# Names of catalogue patterns that are also words one needs to talk about attention.
EVERYDAY_WORDS = set(
    re.findall(
        r"\w+",
        """
        full causal local document region space time radial cosine linear delta flow sigmoid relu routing
        dropped agent based top_k softcap additive taylor halo music variate sparsemax entmax sinkhorn
        retention streaming injective efficient dense
        """,
    )
)


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether the import waits inside a function."""

    file: str
    line: int
    module: str
    names: tuple[str, ...]
    level: int
    waits: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {'.' * self.level}{self.module}"


def relative(path: Path) -> str:
    """The path from the root, with slashes on every system."""
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    """All Python files under some root folders, each once: the links in attnlang/ are not followed."""
    found: list[Path] = []
    for folder in folders:
        for directory, below, names in os.walk(ROOT / folder, followlinks=False):
            below[:] = sorted(name for name in below if name != "__pycache__")
            found += [Path(directory) / name for name in sorted(names) if name.endswith(".py")]
    return found


def compiler_files() -> list[Path]:
    """Every Python file of the package."""
    return python_files("attnlang", *LINKED)


def all_files() -> list[Path]:
    """Every Python file of the repository that a person wrote."""
    others = python_files("tests", "examples", "benchmarks")
    return compiler_files() + [path for path in others if not relative(path).startswith(GENERATED)]


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, `import_module("…")` and `__import__("…")` with a plain text included."""
    file = relative(path)

    def visit(node: ast.AST, waits: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(file, node.lineno, alias.name, (), 0, waits)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield Import(file, node.lineno, module or "", tuple(n.name for n in names), level, waits)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield Import(file, node.lineno, module, (), 0, waits)
            case _:
                pass
        inside = waits or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree_of(path), False)


def is_for_types(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` holds imports that never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def dotted_name(path: Path) -> str:
    """`grammar/parser.py` -> `attnlang.grammar.parser`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    full = parts if parts[0] == "attnlang" else ("attnlang", *parts)
    return ".".join(full[:-1] if full[-1] == "__init__" else full)


def room_of(module: str) -> str:
    """`attnlang.ir.text` -> `ir`, `attnlang.elaborate_names` -> `elaborate`, `attnlang` -> `door`."""
    parts = module.split(".")
    if len(parts) == 1:
        return "door"
    known = [room for room in MAY_IMPORT if parts[1] == room or parts[1].startswith(f"{room}_")]
    return max(known, key=len, default=parts[1])


def imported_modules(found: Import, importer: str, modules: set[str], is_package: bool) -> list[str]:
    """The modules of ours that an import reaches; `from attnlang import errors` reaches `attnlang.errors`."""
    base = found.module
    if found.level:
        parts = importer.split(".") if is_package else importer.split(".")[:-1]
        kept = parts[: len(parts) - found.level + 1]
        base = ".".join([*kept, found.module] if found.module else kept)
    if base.split(".")[0] != "attnlang":
        return []
    return [f"{base}.{name}" if f"{base}.{name}" in modules else base for name in found.names] or [base]


# ---------------------------------------------------------------------------------------------- imports


def test_every_module_belongs_to_a_room() -> None:
    homeless = [relative(path) for path in compiler_files() if room_of(dotted_name(path)) not in MAY_IMPORT]
    assert homeless == [], "name the room in MAY_IMPORT, with the rooms it may import"


def test_imports_go_down_and_never_to_a_sibling() -> None:
    modules = {dotted_name(path) for path in compiler_files()}
    wrong: list[str] = []
    for path in compiler_files():
        importer = dotted_name(path)
        room = room_of(importer)
        allowed = MAY_IMPORT.get(room, set()) | {room}
        for found in imports_of(path):
            reached = imported_modules(found, importer, modules, path.name == "__init__.py")
            wrong += [f"{found} ({room} -> {room_of(m)})" for m in reached if room_of(m) not in allowed]
    assert wrong == []


def test_the_table_of_rooms_has_no_way_back_up() -> None:
    done: set[str] = set()
    while ready := {room for room, below in MAY_IMPORT.items() if room not in done and below <= done}:
        done |= ready
    assert done == set(MAY_IMPORT), "these rooms import one another in a circle"


def test_a_library_is_named_in_one_room() -> None:
    wrong: list[str] = []
    for path in compiler_files():
        file = relative(path)
        for found in imports_of(path):
            library = found.module.split(".")[0]
            if found.level or library in sys.stdlib_module_names or library in ("attnlang", *LINKED):
                continue
            home = LIBRARIES.get(library, Home(top=()))
            patterns = home.top + home.inside if found.waits else home.top
            if not any(fnmatch(file, pattern) for pattern in patterns):
                wrong.append(f"{found}{' inside a function' if found.waits else ''}")
    assert wrong == [], "LIBRARIES says where each library lives"


def test_every_library_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^A-Za-z0-9_-]", entry)[0] for entry in project["dependencies"]}
    assert required == set(LIBRARIES)


def test_nobody_imports_everything() -> None:
    assert [str(found) for path in all_files() for found in imports_of(path) if "*" in found.names] == []


def test_the_three_root_folders_are_imported_under_their_full_name() -> None:
    wrong = [
        str(found)
        for path in all_files()
        for found in imports_of(path)
        if found.level == 0 and found.module.split(".")[0] in LINKED
    ]
    assert wrong == [], "this loads a second copy of every class: write attnlang.grammar and so on"


def test_relative_imports_stay_within_the_three_root_folders() -> None:
    wrong: list[str] = []
    for path in compiler_files():
        folder = relative(path).split("/")[0]
        for found in imports_of(path):
            if folder not in LINKED:
                astray = found.level > 0
            elif found.level == 0:
                names = [found.module, *(f"{found.module}.{name}" for name in found.names)]
                astray = any(f"{name}.".startswith(f"attnlang.{folder}.") for name in names)
            else:
                astray = found.level > 1
            if astray:
                wrong.append(str(found))
    assert wrong == [], "`from .sibling import …` within the three root folders, in full everywhere else"


def test_the_environment_is_read_in_one_place() -> None:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    wrong: list[str] = []
    for path in compiler_files():
        if any(fnmatch(relative(path), pattern) for pattern in ENVIRONMENT_READERS):
            continue
        for node in ast.walk(tree_of(path)):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in names:
                    wrong.append(f"{relative(path)}:{node.lineno} os.{name}")
                case ast.ImportFrom(module="os", names=aliases) if names & {alias.name for alias in aliases}:
                    wrong.append(f"{relative(path)}:{node.lineno} from os import …")
                case _:
                    pass
    assert wrong == [], "ask attnlang.settings.options()"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, attnlang; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


# ------------------------------------------------------------------------------------------ files and folders


def test_the_links_that_show_the_root_folders_inside_the_package() -> None:
    for name in LINKED:
        link = ROOT / "attnlang" / name
        assert link.is_symlink(), f"{link} must be a link (on Windows: git config core.symlinks true)"
        assert os.readlink(link) == f"../{name}"
        assert not (ROOT / name).is_symlink()


def test_the_three_root_folders_are_flat() -> None:
    for name in LINKED:
        below = {path.name for path in (ROOT / name).iterdir() if path.is_dir()} - {"__pycache__"}
        assert below == set(), f"a package inside {name}/ would be missing from the wheel"


def test_every_package_and_every_data_file_is_declared() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    data: dict[str, list[str]] = setuptools["package-data"]
    packages: set[str] = set()
    undeclared: list[str] = []
    for directory, below, names in os.walk(ROOT / "attnlang", followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        package = Path(directory).relative_to(ROOT).as_posix().replace("/", ".")
        if any(name.endswith(".py") for name in names) or package == "attnlang":
            packages.add(package)
        declared = ["*.py", ".*", *data.get(package, [])]
        undeclared += [f"{package}: {n}" for n in names if not any(fnmatch(n, glob) for glob in declared)]
    assert set(setuptools["packages"]) == packages
    assert undeclared == [], "add it to package-data in pyproject.toml"
    mapped = {f"attnlang.{name}": name for name in LINKED}
    assert setuptools["package-dir"] == {"attnlang": "attnlang", **mapped}


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in compiler_files()}
    without = [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert [folder for folder in without if folder != "attnlang"] == []


def test_no_file_hides_a_module_that_others_need() -> None:
    assert [relative(path) for path in all_files() if path.name in FORBIDDEN_NAMES] == []


def test_every_file_says_first_what_it_is_for() -> None:
    silent: list[str] = []
    for path in all_files():
        text = path.read_text(encoding="utf-8")
        if not text.startswith(('"""', 'r"""')) or not ast.get_docstring(tree_of(path)):
            silent.append(relative(path))
    assert silent == [], "the first line of a file is its docstring"


def test_files_are_small() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in all_files()}
    assert {file: length for file, length in lengths.items() if length >= LONGEST_FILE} == {}


def test_the_compiler_knows_no_pattern_by_name() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.attn")} - EVERYDAY_WORDS
    wrong: list[str] = []
    for path in compiler_files():
        if relative(path) == "attnlang/demo.py":
            continue  # it shows one example, and says which
        words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        wrong += [f"{relative(path)}: {name}" for name in sorted(names & words)]
    assert wrong == [], "a mechanism must serve every pattern that has the property, not one name"
