"""Vectors from a server: whatever speaks the `/embeddings` call that most of them have in common.

Floor 7. Invariant: a key is sent to that server and shown nowhere; what comes back is one vector
of the said length for each text, or an error. Any thread may use it.

The call: POST to URL/embeddings `{"model", "input": [text…]}`; the answer has `data`, a list of
`{"index", "embedding": [number…]}`. Busy servers (429, 5xx) and broken connections are asked
again, after as long as the server says or twice as long as before. When that has not helped, nobody
waits for it for half a minute: what is asked then is `ModelUnavailable` at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.clock import Clock, SystemClock
from cas.errors import AccessDenied, Invalid, ModelUnavailable, Unsupported
from cas.later import Later

if TYPE_CHECKING:
    import httpx
else:
    httpx = Later("httpx")

_WAIT_MAX_MS: Final = 20_000.0
_REST_MS: Final = 30_000.0
_SAID_MAX: Final = 200
"""Characters of a server's own words that an error repeats."""


class RemoteEmbedder:
    """A model behind `url` (such as `https://host/v1`); `pip install 'agent-cas[remote]'`.

    `dimensions` is the length of its vectors. `key` goes into the Authorization header; by default
    none does. At most `batch` texts go into one request, which may take `timeout_seconds`; one
    that fails is made `attempts` times in all.

    `identity` is the address, the model and the length: a server that changes the model behind a
    name has to be told by another `model`, or its vectors are compared with older ones.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        dimensions: int,
        key: str | None = None,
        batch: int = 64,
        timeout_seconds: float = 30.0,
        attempts: int = 4,
        clock: Clock | None = None,
    ) -> None:
        if dimensions < 1 or batch < 1 or attempts < 1 or not timeout_seconds > 0:
            raise Invalid("dimensions, batch, attempts and timeout_seconds are numbers above zero.")
        try:
            address = httpx.URL(url)
        except ImportError as error:
            raise Unsupported(
                "A model on a server needs httpx: pip install 'agent-cas[remote]'.", extra="remote"
            ) from error
        except (httpx.InvalidURL, TypeError) as error:
            raise Invalid(f"The address of an embedder is no URL: {error}") from error
        if address.scheme not in ("http", "https") or not address.host:
            raise Invalid("The address of an embedder begins with https:// or http://.")
        if address.userinfo or address.query:
            raise Invalid("The address of an embedder has no user, password or query; use `key`.")
        self._url = str(address).rstrip("/") + "/embeddings"
        self._model, self._dimensions = model, dimensions
        self._batch, self._attempts = batch, attempts
        self._clock = SystemClock() if clock is None else clock
        self._rests_until_ms = 0.0
        self._client = httpx.Client(
            timeout=timeout_seconds,
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
        )

    def __repr__(self) -> str:
        return f"RemoteEmbedder({self._url!r}, {self._model!r}, dimensions={self._dimensions})"

    @property
    def identity(self) -> str:
        """The address, the model and the length of a vector."""
        return f"{self._url}:{self._model}:{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self._dimensions

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text. Raises `ModelUnavailable`, `AccessDenied`, `Invalid`."""
        found: list[list[float]] = []
        for start in range(0, len(texts), self._batch):
            part = texts[start : start + self._batch]
            # Servers refuse an empty text; a blank says as little.
            found += self._vectors(self._ask([text or " " for text in part]), len(part))
        return found

    def _ask(self, texts: list[str]) -> Any:
        body = {"model": self._model, "input": texts, "encoding_format": "float"}
        if self._clock.monotonic_ms() < self._rests_until_ms:
            raise self._unavailable("did not answer a moment ago")
        wait_ms = 500.0
        for attempt in range(1, self._attempts + 1):
            asked_ms = 0.0
            try:
                answer = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                trouble = f"cannot be reached ({type(error).__name__})"
            else:
                if answer.is_success:
                    return _json(answer)
                trouble = f"answers {answer.status_code}: {answer.text[:_SAID_MAX].strip()!r}"
                if answer.status_code in (401, 403):
                    raise AccessDenied(
                        f"{self._url} refuses the key that was given to the embedder, or asks for "
                        "one (`key`).",
                        path=self._url,
                    )
                if answer.status_code != 429 and answer.status_code < 500:
                    raise Invalid(f"{self._url} {trouble}.", path=self._url)
                asked_ms = _asked_ms(answer.headers.get("retry-after", ""))
            if attempt < self._attempts:
                self._clock.sleep_ms(min(max(wait_ms, asked_ms), _WAIT_MAX_MS))
                wait_ms *= 2
        self._rests_until_ms = self._clock.monotonic_ms() + _REST_MS
        raise self._unavailable(trouble)

    def _unavailable(self, trouble: str) -> ModelUnavailable:
        return ModelUnavailable(f"{self._url} {trouble}; try again later.", path=self._url)

    def _vectors(self, answer: Any, count: int) -> list[list[float]]:
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = [[float(number) for number in row["embedding"]] for row in rows]
            numbered = [int(row["index"]) for row in rows] == list(range(count))
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid(
                f"{self._url} does not answer as an embeddings server does.", path=self._url
            ) from error
        if not numbered or any(len(vector) != self._dimensions for vector in vectors):
            lengths = sorted({len(vector) for vector in vectors})
            raise Invalid(
                f"{self._url} gave {len(vectors)} vectors of {lengths} numbers for {count} texts, "
                f"where {self._dimensions} numbers are expected; see `dimensions`.",
                path=self._url,
            )
        if not all(math.isfinite(number) for vector in vectors for number in vector):
            raise Invalid(f"{self._url} gave a vector with a number that is none.", path=self._url)
        return vectors


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _asked_ms(words: str) -> float:
    """What a Retry-After of seconds asks for; a date, or nonsense, asks for nothing."""
    return int(words) * 1000.0 if words.isascii() and words.isdigit() else 0.0
