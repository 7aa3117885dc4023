"""Text into vectors: the port, and the model that comes with the package.

Floor 7. Invariant: equal text gives the same vector, alone or in a batch, on every machine; a
vector is only ever compared with those of the same `identity`. Any thread may use it.

The model is a table of one vector a word piece, distilled from a sentence transformer (see
`tools/embedder.py`). The vector of a text is the sum of its pieces' rows, as whole numbers, brought
to length one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cas.errors import Corrupt, Unsupported
from cas.later import Later
from cas.recall.wordpiece import WordPieces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
else:
    np = Later("numpy", keep=True)

MODEL: Final = Path(__file__).parent / "data" / "minilm-256.npz"
MODEL_SHA256: Final = "6d8724cd0fc09cb1f5848b6a0567cf1fd28b81801b0a5e52e61da1284448a5fe"
NAME: Final = "minilm-static-256"
_DIMENSIONS: Final = 256

_CHARS_MAX: Final = 32_768
"""Of a longer text this much is embedded: the mean of so many words hardly moves any more."""


_ROOM: Final = 512
"""Rows of the table that are summed at a time."""


class Embedder(Protocol):
    """What turns texts into vectors. Called from any thread.

    `identity` names the model and its data, so that vectors of another are told apart.
    """

    @property
    def identity(self) -> str:
        """The model and its data."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    def embed(self, texts: Sequence[str]) -> Any:
        """One vector a text: an array of shape (texts, dimensions) of float32, or what numpy
        makes one of. They need not have length one.
        """


def need_numpy() -> None:
    """Raises `Unsupported` where numpy is missing."""
    try:
        np.ndarray  # noqa: B018 - the first use imports it
    except ImportError as error:
        raise Unsupported(
            "Recall needs numpy: pip install 'agent-cas[search]'. Without it `cas find` works, and "
            "`find`, `links_to` and the like of `cas.Recall(store, embedder=None)`.",
            extra="search",
        ) from error


def pieces_of(model: Any) -> list[str]:
    """The vocabulary that lies beside the table of the package's model."""
    return model["pieces"].tobytes().decode("utf-8").split("\n")  # type: ignore[no-any-return]


class StaticEmbedder:
    """The model that comes with the package: 256 dimensions, offline, numpy only."""

    def __init__(self, path: Path = MODEL, sha256: str = MODEL_SHA256) -> None:
        if find_spec("numpy") is None:
            need_numpy()
        self._path, self._sha256 = path, sha256
        self._lock = threading.Lock()
        self._model: tuple[Any, WordPieces] | None = None

    @property
    def identity(self) -> str:
        """The model and its data."""
        return f"{NAME}:{self._sha256[:16]}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return _DIMENSIONS

    def _loaded(self) -> tuple[Any, WordPieces]:
        """The table and the vocabulary, read when the first text comes: a handle that only finds,
        and whose index is up to date, needs neither them nor numpy.
        """
        with self._lock:
            if self._model is None:
                data = self._path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                if digest != self._sha256:
                    raise Corrupt(
                        f"{self._path} is not the model that this version was made with (SHA-256 "
                        f"{digest}, not {self._sha256}); install the package again.",
                        path=str(self._path),
                    )
                with np.load(BytesIO(data), allow_pickle=False) as model:
                    rows = model["rows"].astype(np.float32)
                    self._model = rows, WordPieces(pieces_of(model))
            return self._model

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector of length one a text; that of a text without words is all zeros. Raises
        `Corrupt` where the model's data is not that of the package.
        """
        rows, pieces = self._loaded()
        sums = np.zeros((len(texts), self.dimensions), np.float32)
        # First all words, then all sums: taken in turns, dictionary and table push each other out
        # of the processor's caches, and both cost twice as much.
        packed = [pieces.packed(text[:_CHARS_MAX]) for text in texts]
        # One room for all texts: what is taken of the table for a long one is more than the
        # allocator keeps, and each page of new memory costs as much as the sum.
        rows_max = min(_ROOM, max(map(len, packed), default=0) // 8)
        room = np.empty((rows_max, self.dimensions), np.float32)
        ones = np.ones(rows_max, np.float32)
        for number, data in enumerate(packed):
            ids = np.frombuffer(data, np.int64)
            for start in range(0, len(ids), _ROOM):
                part = ids[start : start + _ROOM]
                taken = rows.take(part, 0, room[: len(part)], "clip")
                # Twice as fast as a sum along an axis, and as exact: whole numbers below 2^24.
                sums[number] += ones[: len(part)] @ taken
        exact = sums.astype(np.float64)
        # Squares of whole numbers: exact as well, so that no order of adding shows.
        norms = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
        return (exact / np.where(norms == 0, 1.0, norms)).astype(np.float32)


_default: StaticEmbedder | None = None
_default_lock = threading.Lock()


def default_embedder() -> StaticEmbedder:
    """The model of the package, one of a process. Raises `Unsupported` without numpy."""
    global _default
    with _default_lock:
        if _default is None:
            _default = StaticEmbedder()
        return _default
