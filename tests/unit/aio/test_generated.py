"""The asyncio face is complete: no public call of the store is without its asynchronous form."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys

import pytest

import cas.aio
from tests.tidy.source import ROOT

sys.path.insert(0, str(ROOT / "tools"))
generator = importlib.import_module("aio")
HELD = {
    "Store": "AsyncStore",
    "HistoryVerbs": "AsyncStore",
    "UnitOfWork": "AsyncUnitOfWork",
    "WorkspaceView": "AsyncWorkspaceView",
    "Workspace": "AsyncWorkspace",
}
"""Whose face adds to what is generated."""
CLASSES = [cls for file in generator.FILES for cls in file.classes]


@pytest.mark.skipif(
    importlib.util.find_spec("ruff") is None,
    reason="ruff is not installed, which formats what is generated; `tools/dev.py lint` has it",
)
def test_what_is_generated_is_what_stands_there() -> None:
    """`tools/aio.py` would write these modules; run it after a change of a public call."""
    for path, text in generator.generate().items():
        assert path.read_text(encoding="utf-8") == text, f"run `python tools/aio.py`: {path.name}"


@pytest.mark.parametrize("cls", CLASSES, ids=[cls.name for cls in CLASSES])
def test_no_public_call_is_missing(cls: generator.Class) -> None:
    """Each public name has a form of the same name, with the same parameters in the same order."""
    sync = getattr(importlib.import_module(cls.module), cls.name)
    face = getattr(cas.aio, HELD.get(cls.name, cls.face))
    for name, value in generator.public(sync).items():
        if name in cls.inside:
            continue
        assert hasattr(face, name), f"{cls.face} has no {name}; run `python tools/aio.py`"
        found = inspect.getattr_static(face, name)
        if isinstance(value, property):
            continue
        ours, theirs = (inspect.signature(getattr(f, "__wrapped__", f)) for f in (found, value))
        assert list(ours.parameters) == list(theirs.parameters), name
        kinds = [[p.kind for p in s.parameters.values()] for s in (ours, theirs)]
        assert kinds[0] == kinds[1], name
        assert inspect.getdoc(found), name


def test_the_check_would_find_a_missing_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new public call of the store changes what is generated, and is found missing."""
    store = importlib.import_module("cas.history.store")

    def brand_new(self: object, number: int) -> str:
        """Something new."""
        raise AssertionError(number)

    brand_new.__module__ = store.__name__
    monkeypatch.setattr(store.Store, "brand_new", brand_new, raising=False)
    (cls,) = (cls for cls in CLASSES if cls.name == "Store")
    with pytest.raises(AssertionError, match="brand_new"):
        test_no_public_call_is_missing(cls)
