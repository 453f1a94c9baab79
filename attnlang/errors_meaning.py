"""What can be wrong with the meaning of a pattern: names, types, axes and lengths. Codes E2."""

from __future__ import annotations

from attnlang.errors import Diagnostic


class NameTwice(Diagnostic):
    code = "E201"
    message = "'{name}' is declared twice"
    hint = "it is already {first}"


class UnknownName(Diagnostic):
    code = "E203"
    message = "unknown name '{name}'"


class UnknownFunction(Diagnostic):
    code = "E204"
    message = "unknown function '{name}'"


class WrongArguments(Diagnostic):
    code = "E205"
    message = "'{name}' takes {expected}, here it gets {given}"


class WrongType(Diagnostic):
    code = "E206"
    message = "{what} must be {expected}, this is {found}"


class LengthsDisagree(Diagnostic):
    code = "E207"
    message = "vectors of different lengths: {left} and {right}"


class WrongShape(Diagnostic):
    code = "E208"
    message = "{what} must be {expected}, this is {found}"


class WrongIndexCount(Diagnostic):
    code = "E209"
    message = "'{name}' is indexed as {expected}, here it gets {given}"


class WrongAxis(Diagnostic):
    code = "E210"
    message = "axis {number} of '{name}' is indexed by {expected}, not by {found}"


class IndexNotHere(Diagnostic):
    code = "E211"
    message = "the index '{name}' has no value {place}"


class UnknownAttribute(Diagnostic):
    code = "E212"
    message = "'{base}' has no '{name}'"


class DependsOnItself(Diagnostic):
    code = "E213"
    message = "'{name}' depends on itself"
    hint = "through {through}"


class SectionTwice(Diagnostic):
    code = "E215"
    message = "'{keyword}' stands twice in {place}"
    hint = "the first is in line {line}"


class SectionsDisagree(Diagnostic):
    code = "E216"
    message = "'{keyword}' has no place here: {reason}"


class WrongDomain(Diagnostic):
    code = "E217"
    message = "'{name}' cannot go through {domain}"
    hint = "{advice}"


class OnlyInNormalizer(Diagnostic):
    code = "E218"
    message = "'{name}' has a value only in normalize and reweight"


class WrongParameter(Diagnostic):
    code = "E219"
    message = "parameter '{name}': {problem}"


class NotKnownAtCall(Diagnostic):
    code = "E220"
    message = "{what} must be known when the pattern is called, this depends on {found}"
    hint = "only parameters, sizes and numbers may enter"


class WrongBlocks(Diagnostic):
    code = "E221"
    message = "{problem}"


class WrongGrid(Diagnostic):
    code = "E222"
    message = "{problem}"


class WrongSelect(Diagnostic):
    code = "E223"
    message = "{problem}"


class WrongBranch(Diagnostic):
    code = "E224"
    message = "{problem}"


class WrongMerge(Diagnostic):
    code = "E225"
    message = "{problem}"


class WrongRecurrence(Diagnostic):
    code = "E226"
    message = "{problem}"


class WrongClaim(Diagnostic):
    code = "E227"
    message = "{problem}"


class ExpandsTooFar(Diagnostic):
    code = "E228"
    message = "with its definitions written out this has more than {limit} operations"
    hint = "name an intermediate result: 'let name[q] = …' is computed once"


class NestsTooFar(Diagnostic):
    code = "E236"
    message = "with its definitions written out this nests more than {limit} deep"
    hint = "name an intermediate result: 'let name[q] = …' is computed once"


class WrongUse(Diagnostic):
    code = "E229"
    message = "'{name}' is {what}"


class SectionMissing(Diagnostic):
    code = "E230"
    message = "{what} has no {keyword}"


class ImportMissing(Diagnostic):
    code = "E231"
    message = "the import '{path}' was not found"


class IndexOutOfRange(Diagnostic):
    code = "E232"
    message = "index {index} is outside axis {number} of '{name}', which has length {length}"
    hint = "indices begin at 0"


class UnusedSection(Diagnostic):
    code = "E233"
    message = "'{keyword}' belongs to no attention: the branches have their own sections"
    hint = "put it into a branch, or use the unnamed attention as 'attention' in the output"


class NotPositive(Diagnostic):
    code = "E234"
    message = "{what} must be at least {least}, this is {found}"


class WrongInside(Diagnostic):
    code = "E235"
    message = "'{name}' cannot be used like this: {problem}"


class FitsBothAxes(Diagnostic):
    code = "E237"
    message = "a vector of length {length} fits both axes of this matrix"
    hint = (
        "outer(x, ones) * S scales the rows of S by x, outer(ones, x) * S its columns, for a vector of ones"
    )
