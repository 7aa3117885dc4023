"""The error tree and its table in docs/errors.md are one thing said twice, and agree."""

from __future__ import annotations

import ast
import builtins
import pickle
import re
from pathlib import Path

import pytest

from cas import errors
from cas.errors import CasError
from tests.tidy.source import ROOT, assert_clean, plant, read_package

pytestmark = pytest.mark.docs

# Built-in exceptions that are part of a Python protocol or say that the program is wrong.
PROTOCOL_ERRORS = {
    "AssertionError",
    "AttributeError",
    "NotImplementedError",
    "StopAsyncIteration",
    "StopIteration",
    "TypeError",
}
ROW = re.compile(r"^\| `(?P<code>[a-z-]+)` \| `(?P<name>\w+)` \| (?P<exit>\d+) \| (?P<rest>.*) \|$")


def all_classes(base: type[CasError] = CasError) -> list[type[CasError]]:
    """Every class of the tree below `base`, each once."""
    found = {base: None}
    for child in base.__subclasses__():
        found.update(dict.fromkeys(all_classes(child)))
    return list(found)


def check_classes(classes: list[type[CasError]]) -> list[str]:
    """Classes without a code, a family, a sentence or a way through pickle of their own."""
    findings: list[str] = []
    codes: dict[str, str] = {}
    for cls in classes:
        name = cls.__name__
        code = cls.__dict__.get("code")
        if not isinstance(code, str) or not re.fullmatch(r"[a-z]+(-[a-z]+)*", code):
            findings.append(f"{name}: no stable code of its own")
        elif code in codes:
            findings.append(f"{name}: code {code!r} belongs to {codes[code]}")
        else:
            codes[code] = name
        families = [c for c in cls.__mro__ if CasError in c.__bases__]
        if cls is not CasError and len(families) != 1:
            findings.append(f"{name}: belongs to {len(families)} families")
        if not (cls.__dict__.get("__doc__") or "").strip():
            findings.append(f"{name}: no docstring")
        error = cls("Words.", path="a", seq=7)
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not cls or copy.fields != error.fields or str(copy) != "Words.":
            findings.append(f"{name}: does not survive pickle")
    return findings


def fields_of(cls: type[CasError]) -> set[str]:
    """The fields that a docstring promises after `Fields:`."""
    return set(re.findall(r"`(\w+)`", (cls.__doc__ or "").partition("Fields:")[2]))


def check_table(text: str, classes: list[type[CasError]]) -> list[str]:
    """Rows of the table that differ from the classes, lack, or are too many."""
    findings: list[str] = []
    rows = {match["name"]: match for line in text.splitlines() if (match := ROW.match(line))}
    for cls in classes:
        row = rows.pop(cls.__name__, None)
        if row is None:
            findings.append(f"docs/errors.md: no row for {cls.__name__} ({cls.code})")
            continue
        fields, _, advice = row["rest"].partition(" | ")
        if row["code"] != cls.code or int(row["exit"]) != cls.exit_code:
            findings.append(f"docs/errors.md: {cls.__name__} is {cls.code}, exit {cls.exit_code}")
        if set(re.findall(r"`(\w+)`", fields)) != fields_of(cls):
            findings.append(f"docs/errors.md: {cls.__name__} has fields {sorted(fields_of(cls))}")
        if len(advice.split()) < 3:
            findings.append(f"docs/errors.md: {cls.__name__} does not say what to do next")
    return findings + [f"docs/errors.md: {name} is no error class" for name in rows]


def check_raises(root: Path) -> list[str]:
    """Error classes made outside cas/errors.py, and raises of what is no error of the package."""
    findings: list[str] = []
    built_in = {
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    for module in read_package(root):
        if module.room in ("errors", "testing"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                bases = {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
                errors_of_ours = {cls.__name__ for cls in all_classes()}
                if bases & (built_in | errors_of_ours):
                    findings.append(module.at(node, f"{node.name} belongs in cas/errors.py"))
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                name = getattr(raised, "id", "")
                allowed = PROTOCOL_ERRORS | ({"SystemExit"} if module.room == "cli" else set())
                if name == "CasError" or (name in built_in and name not in allowed):
                    findings.append(module.at(node, f"raises {name}, not a class of cas.errors"))
    return findings


def test_every_error_class_keeps_the_rules() -> None:
    """Each class has one code, one family and a docstring, and crosses process borders."""
    assert errors.CasError in all_classes()
    assert len(all_classes()) > 30
    assert_clean(check_classes([cls for cls in all_classes() if cls.__module__ == "cas.errors"]))


def test_the_table_lists_every_error() -> None:
    """docs/errors.md has code, exit code, fields and the next step of every class, no more."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert_clean(
        check_table(text, [cls for cls in all_classes() if cls.__module__ == "cas.errors"])
    )


def test_errors_come_from_the_error_tree() -> None:
    """No other room makes an error class or raises a built-in error for a caller to catch."""
    assert_clean(check_raises(ROOT))


class _Elsewhere(errors.Invalid, errors.Conflict):
    """A class of two families. Fields: `path`."""

    code = "elsewhere"


class _Unpicklable(errors.Invalid):
    """Loses its fields on the way."""

    code = "unpicklable"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message,))


class _Silent(errors.Invalid):
    code = "silent"


class _SameCode(errors.Invalid):
    """Takes the code of its family."""

    code = "invalid"


class _NoCode(errors.Invalid):
    """Inherits the code."""


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (_Elsewhere, "belongs to 2 families"),
        (_Unpicklable, "does not survive pickle"),
        (_Silent, "no docstring"),
        (_SameCode, "code 'invalid' belongs to Invalid"),
        (_NoCode, "no stable code of its own"),
    ],
)
def test_a_planted_class_is_found(cls: type[CasError], expected: str) -> None:
    """A class that breaks one rule gives one finding."""
    (finding,) = check_classes([errors.Invalid, cls])
    assert finding == f"{cls.__name__}: {expected}"


GOOD_ROW = "| `gone` | `Gone` | 3 | `id`, `seq`, `boundary` | Name something newer. |\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("", "no row for Gone"),
        (GOOD_ROW.replace("`gone`", "`went`"), "Gone is gone, exit 3"),
        (GOOD_ROW.replace("| 3 |", "| 4 |"), "Gone is gone, exit 3"),
        (GOOD_ROW.replace("`seq`, ", ""), "Gone has fields"),
        (GOOD_ROW.replace("Name something newer.", ""), "what to do next"),
        (GOOD_ROW + GOOD_ROW.replace("`Gone`", "`Went`"), "Went is no error class"),
    ],
)
def test_a_planted_row_is_found(row: str, expected: str) -> None:
    """A missing, wrong, silent or left-over row gives one finding; the right row none."""
    assert check_table(GOOD_ROW, [errors.Gone]) == []
    (finding,) = check_table(row, [errors.Gone])
    assert expected in finding


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("cas/objects/a.py", "raise ValueError('x')\n", "raises ValueError"),
        ("cas/objects/a.py", "raise RuntimeError\n", "raises RuntimeError"),
        ("cas/objects/a.py", "raise CasError('x')\n", "raises CasError"),
        ("cas/objects/a.py", "raise SystemExit(1)\n", "raises SystemExit"),
        ("cas/objects/a.py", "class Odd(Exception):\n    pass\n", "Odd belongs in"),
        ("cas/objects/a.py", "class Odd(errors.Busy):\n    pass\n", "Odd belongs in"),
    ],
)
def test_a_planted_raise_is_found(tmp_path: Path, file: str, text: str, expected: str) -> None:
    """A foreign error gives one finding; protocol errors and those of the tree give none."""
    fine = "raise TypeError('x')\ntry:\n    pass\nexcept OSError:\n    raise\nraise Busy('x')\n"
    plant(tmp_path, {"cas/cli/a.py": "raise SystemExit(1)\n", "cas/objects/b.py": fine})
    assert check_raises(tmp_path) == []
    (finding,) = check_raises(plant(tmp_path, {file: text}))
    assert expected in finding
