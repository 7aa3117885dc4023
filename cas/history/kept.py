"""Objects that are kept whatever refs do: what pins and holds say of them.

Floor 4. Values; `keeping` makes them.
"""

from __future__ import annotations

from attrs import frozen

from cas.model.ids import Kind, ObjectId


@frozen
class Pin:
    """An object that is kept with all that it names. `time_us`: µs since 1970 UTC."""

    id: ObjectId
    kind: Kind
    reason: str
    author: str
    time_us: int
    seq: int


@frozen
class Hold:
    """An object under a legal hold: kept with all that it names, and for a commit with the
    content of all its ancestors, whatever else is asked for. `time_us`: µs since 1970 UTC.
    """

    id: ObjectId
    kind: Kind
    reason: str
    author: str
    time_us: int
    seq: int
