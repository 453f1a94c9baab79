"""The errors of the C++ rooms: no compiler, a level the machine lacks, a kernel that fails to compile or to load."""

from __future__ import annotations

import sys

from attnlang.errors import Diagnostic

_INSTALL = {
    "linux": "install one, as in `apt install g++` (Debian, Ubuntu) or `dnf install gcc-c++` (Fedora, RHEL)",
    "darwin": "install Apple's with `xcode-select --install`",
    "win32": "install LLVM's clang++ or the g++ of MinGW-w64 and add it to PATH",
}


class CompilerMissing(Diagnostic):
    """There is no C++ compiler, or the one that CXX names does not run."""

    code = "E550"
    message = "{problem}"
    hint = '{install}, or name one in CXX; target="eager" needs none'

    def __init__(self, problem: str) -> None:
        install = _INSTALL.get(sys.platform, "install g++ or clang++")
        super().__init__(problem=problem, install=install)

    def __reduce__(self) -> tuple[type[CompilerMissing], tuple[str]]:
        return type(self), (self.fields["problem"],)


class CppCompileError(Diagnostic):
    """The compiler rejected a generated kernel. `file` holds its text, with the compiler's full report beside it."""

    code = "E551"
    message = "{compiler} failed on the kernel {kernel}: {line}"
    hint = 'the pattern itself runs with target="eager"; please report the kernel, kept in {file}'


class LevelMissing(Diagnostic):
    """Vector instructions were asked for that this processor, or its compiler, does not have."""

    code = "E552"
    message = "{asked}: this processor and {compiler} know no wider vectors than {widest}"
    hint = "name no level: then the widest are taken"


class CppLoadError(Diagnostic):
    """A compiled kernel could not be loaded into this process."""

    code = "E553"
    message = "the compiled kernel {kernel} cannot be loaded: {reason}"
    hint = '`attnlang cache clear` removes what was compiled before; target="eager" needs none of it'


class LevelNotCompiled(Diagnostic):
    """A kernel was wanted for another machine's vector instructions, which this machine's compiler does not know."""

    code = "E554"
    message = "{compiler} makes no code for cpu:{level}: {reason}"
    hint = "name another compiler in CXX, or write the text only: attnlang compile … --emit cpp"
