"""The type Artifact: content of any size with a name, versions, and what it was made from.

Floor 6. Invariant: the record names its content by id, and the content is the file of the same
name in the same commit, so that nothing collects it and a checkout shows it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from cas.model.ids import BlobId
from cas.trees.node import Value
from cas.workspace.links import Link
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, not_valid


class ArtifactKind(StrEnum):
    """What an artifact is; the folders of the old layout."""

    ARTIFACT = "artifact"
    DATA = "data"
    CODE = "code"
    DOCUMENT = "document"


@aggregate("artifact", collection="artifacts", context="artifacts", path_ids=True)
class Artifact(Aggregate):
    """Content that somebody made. Its id is its name, a path such as `reviews/s12.md`.

    `content` is the blob, `size_bytes` its length; `made_from` names what it was made from, pinned
    to the versions that were read, and `run` the run that made it.
    """

    content: BlobId = part(rule="content")
    size_bytes: int = part(rule="last", searchable="number")
    kind: ArtifactKind = part(default=ArtifactKind.ARTIFACT, searchable="keyword")
    media_type: str = part(default="application/octet-stream", searchable="keyword")
    title: str = part(default="", rule="last", searchable="text")
    tags: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    made_by: str = part(default="", rule="last", searchable="keyword")
    made_from: frozenset[Link] = part(default=frozenset(), rule="union", searchable="keyword")
    run: Link | None = part(default=None, rule="last", searchable="keyword")
    at: datetime | None = part(default=None, rule="greatest", searchable="time")

    @property
    def name(self) -> str:
        """Its name, which is its id."""
        return self.id


def check_content(value: Artifact, file: Value | None) -> None:
    """Refuse a record that names another content than the file of its name has, which only putting
    content changes; `file` is what the tree has there. Raises `InvalidRecord`.
    """
    # The ids of directories are those of no blob.
    if file is None or file[1] != value.content or file[2] != value.size_bytes:
        name = "size_bytes" if file is not None and file[1] == value.content else "content"
        reason = "is not that of its file; put content with `uow.artifacts.put`"
        raise not_valid("artifact", value.id, name, reason)
