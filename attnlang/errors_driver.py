"""What can be wrong between the user and the compiler: imports (E25), calls (E3), targets and dumps (E5)."""

from __future__ import annotations

from attnlang.errors import Diagnostic


class ImportOutside(Diagnostic):
    code = "E250"
    message = "the import '{path}' leads out of the folder of this file"
    hint = "{advice}"


class ImportCircle(Diagnostic):
    code = "E251"
    message = "imports go in a circle: {circle}"


class ImportWithoutFolder(Diagnostic):
    code = "E252"
    message = "a text has no folder to import '{path}' from"
    hint = "write it to a file and load that, or put the definitions into the text"


class ImportTooDeep(Diagnostic):
    code = "E253"
    message = "imports are nested more than {limit} deep"


class ImportClash(Diagnostic):
    code = "E254"
    message = "'{name}' is defined in '{first}' and again in '{second}'"
    hint = "rename one of them"


# -------------------------------------------------------------------------------------------------------------
# E3 the arguments of a call
# -------------------------------------------------------------------------------------------------------------


class UnknownArgument(Diagnostic):
    code = "E301"
    message = "{pattern} has no parameter or tensor '{name}'"


class MissingArgument(Diagnostic):
    code = "E302"
    message = "{pattern} needs the {kind} '{name}'"


class WrongArgumentType(Diagnostic):
    code = "E303"
    message = "{pattern}: '{name}' must be {expected}, this is {found}"


class ParameterOutOfRange(Diagnostic):
    code = "E304"
    message = "{pattern}: '{name}' must be {bounds}, this is {value}"


class WrongRank(Diagnostic):
    code = "E305"
    message = "{pattern}: '{name}' must have the axes {axes}, this has the shape {shape}"


class WrongLength(Diagnostic):
    code = "E306"
    message = "{pattern}: axis '{axis}' of '{name}' must have length {expected}, this has {found}"


class WrongElements(Diagnostic):
    code = "E307"
    message = "{pattern}: '{name}' must hold {expected}, this holds {found}"


class WrongDevice(Diagnostic):
    code = "E308"
    message = "{pattern}: the tensors of a call must be on one device: {found}"
    hint = "move them with .to(device)"


class SizesDisagree(Diagnostic):
    code = "E309"
    message = "{pattern}: {what} of {first} and {second} must be equal, they are {left} and {right}"


class SizeIsZero(Diagnostic):
    code = "E310"
    message = "{pattern}: {what} must be at least 1, this is {found}"


class SizeTooLarge(Diagnostic):
    code = "E316"
    message = "{pattern}: {what} must be below {limit}, this is {found}"


class RequirementFails(Diagnostic):
    code = "E311"
    message = "{pattern} requires {written}"
    hint = "here {values}"


class PositionOutside(Diagnostic):
    code = "E312"
    message = (
        "{pattern} reads axis '{axis}' of '{name}' at {place}, {low} … {high}, but it has length {length}"
    )
    hint = "{advice}"


class NotOneSoftmax(Diagnostic):
    code = "E313"
    message = "{pattern} has no {what}: {reason}"
    hint = "call it without {argument}=True"


class NoValues(Diagnostic):
    code = "E314"
    message = "{pattern}: '{name}' {problem}"


class UnknownDType(Diagnostic):
    code = "E315"
    message = "{pattern}: no kernel computes in {dtype}"
    hint = "there are {dtypes}"


# -------------------------------------------------------------------------------------------------------------
# E5 the machine
# -------------------------------------------------------------------------------------------------------------


class WrongDeviceForTarget(Diagnostic):
    code = "E503"
    message = "target '{target}' runs on {wanted}, these tensors are on {found}"
    hint = "{advice}"


class LibraryMissing(Diagnostic):
    code = "E506"
    message = "the Python package '{library}' is not installed"
    hint = "pip install {library}"


class CannotDump(Diagnostic):
    code = "E505"
    message = "ATTNLANG_DUMP: '{file}' cannot be written: {reason}"
