"""Extras of recall: a sentence transformer here, a model on a server, exact counts of tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import AccessDenied, Invalid, ModelUnavailable
from cas.recall.embed import default_embedder
from cas.recall.recall import Recall
from cas.recall.receipts import Receipt
from cas.recall.remote import RemoteEmbedder
from cas.recall.tokens import Counter, estimate_tokens, exact_tokens
from tests.unit.recall.kit import SENTENCES, commit, memory

onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime for this interpreter")
KEY = "a-key-that-nobody-is-to-see"


class Clock:
    """Waits by counting."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now = 0.0

    def wall_us(self) -> int:
        return 0

    def monotonic_ms(self) -> float:
        return self.now

    def sleep_ms(self, duration_ms: float) -> None:
        self.slept.append(duration_ms)
        self.now += duration_ms

    def random(self, count: int) -> bytes:
        return bytes(count)


class Server(ThreadingHTTPServer):
    """An embeddings server with the model of the package; `script` is what it does first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request of `Server`."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.server.script:
            status, headers, data = self.server.script.pop(0)
        else:
            vectors = default_embedder().embed(body["input"]).tolist()
            rows = [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]
            # In whatever order a server likes.
            status, headers, data = 200, {}, json.dumps({"data": rows[::-1]}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that runs as long as the test."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def remote(server: Server, **words: Any) -> RemoteEmbedder:
    """An embedder of that server, whose waits take no time."""
    return RemoteEmbedder(
        server.url, "static", **{"dimensions": 256, "key": KEY, "clock": Clock(), **words}
    )


# -- on a server -----------------------------------------------------------------------------


def test_a_server_gives_each_text_its_vector_in_batches(server: Server) -> None:
    """Vectors stand where their texts stood, whatever order the server answers in."""
    embedder = remote(server, batch=3)
    assert embedder.embed(list(SENTENCES)) == default_embedder().embed(SENTENCES).tolist()
    assert [len(body["input"]) for _, _, body in server.asked] == [3, 3, 2]
    assert {(path, key) for path, key, _ in server.asked} == {("/v1/embeddings", f"Bearer {KEY}")}
    assert KEY not in repr(embedder)
    assert embedder.identity == f"{server.url}/embeddings:static:256"
    embedder.close()


def test_a_busy_server_is_asked_again_when_it_says(server: Server) -> None:
    """429 and 5xx are no answer; Retry-After is heeded, a wait beyond reason is not."""
    clock = Clock()
    server.script = [
        (429, {"Retry-After": "3"}, b""),
        (503, {}, b""),
        (500, {"Retry-After": "9999"}, b""),
    ]
    assert len(remote(server, clock=clock).embed(["one"])) == 1
    assert clock.slept == [3000.0, 1000.0, 20_000.0]


def test_who_does_not_answer_is_left_alone_for_a_while(server: Server) -> None:
    """After the last attempt calls fail at once for half a minute, and then it is asked again."""
    clock = Clock()
    embedder = remote(server, clock=clock, attempts=2)
    server.script = [(500, {}, b"out of memory")] * 2
    with pytest.raises(ModelUnavailable, match="out of memory"):
        embedder.embed(["one"])
    with pytest.raises(ModelUnavailable, match="a moment ago"):
        embedder.embed(["one"])
    assert len(server.asked) == 2
    clock.now += 30_000
    assert len(embedder.embed(["one"])) == 1


def test_a_key_that_is_refused_is_no_secret_told(server: Server) -> None:
    """A refusal says what to do, and not what the key was."""
    server.script = [(401, {}, f"wrong key {KEY}".encode())]
    with pytest.raises(AccessDenied) as caught:
        remote(server).embed(["one"])
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (404, b"no such model"),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"data": [{"index": 0}]}'),
        (200, b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'),
        (200, b'{"data": []}'),
        (200, b'{"data": [{"index": 0, "embedding": ["x"]}]}'),
        (200, json.dumps({"data": [{"index": 1, "embedding": [0.5] * 256}]}).encode()),
        (200, json.dumps({"data": [{"index": 0, "embedding": [float("nan")] * 256}]}).encode()),
    ],
)
def test_an_answer_that_is_none_is_refused(server: Server, status: int, answer: bytes) -> None:
    """Whatever else a server says is an error that names it, never a vector."""
    server.script = [(status, {}, answer)]
    with pytest.raises(Invalid, match=r"127\.0\.0\.1"):
        remote(server).embed(["one"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host",
        "https://",
        "https://u:p@host",
        "https://h?key=1",
        "http://host:port",
        3,
    ],
)
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    """An address with a secret in it too: it would be part of the model's name."""
    with pytest.raises(Invalid):
        RemoteEmbedder(url, "static", dimensions=256)


def test_recall_goes_on_by_words_while_the_server_is_away(server: Server, tmp_path: Path) -> None:
    """What is saved meanwhile is found by its words; its vector comes when the server is back."""
    store = cas.open(tmp_path / "store", create=True)
    clock = Clock()
    embedder = remote(server, clock=clock, attempts=1)
    with Recall(store, embedder=embedder) as recall:
        commit(store, memory("first", SENTENCES[0]))
        assert recall.recall("pull request").items[0].parts.meaning > 0
        server.script = [(500, {}, b"down")] * 9
        commit(store, memory("second", SENTENCES[5]))
        found = recall.recall("the cat sleeps", receipt=True)
        assert found.items[0].link.id == "second"
        assert any("down" in notice or "a moment ago" in notice for notice in found.notices)
        assert [state.embedded for state in recall.models()] == [1]
        server.script = []
        clock.now += 60_000
        while recall.follow().embedded:
            pass
        (state,) = recall.models()
        assert state.embedded == state.rows > 1
        again = recall.recall("a feline is resting")
        assert again.items[0].link.id == "second"
        assert again.items[0].parts.meaning > 0
        (receipt,) = recall.find(Receipt).items
        assert recall.replay(receipt).digest == receipt.digest


# -- on this machine -------------------------------------------------------------------------


def test_a_sentence_has_one_vector_alone_and_in_a_batch() -> None:
    """Not one bit depends on what is embedded beside it, or on what came before."""
    embedder = cas.SentenceEmbedder()
    together = embedder.embed([*SENTENCES, "", "word " * 2_000])
    assert together.shape == (len(SENTENCES) + 2, embedder.dimensions)
    for number in (5, 0, 3):
        assert (embedder.embed([SENTENCES[number]])[0] == together[number]).all()
    assert abs((together**2).sum(axis=1) - 1).max() < 1e-5


def test_sentences_that_mean_the_same_are_found(tmp_path: Path) -> None:
    """The model reads sentences: no word of the question is in what it finds."""
    store = cas.open(tmp_path / "store", create=True)
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    with Recall(store, embedder="sentences") as recall:
        assert recall.recall("feline pets napping near heating").items[0].link.id == "m5"
        assert recall.models()[0].identity.startswith("minilm-l6-int8:")


# -- tokens ----------------------------------------------------------------------------------


def test_exact_counts_are_those_of_the_vocabulary() -> None:
    """Known counts; what looks like a mark of the model's own is text."""
    count = exact_tokens()
    assert (count(""), count("hello world"), count("<|endoftext|>")) == (0, 2, 7)
    assert exact_tokens("cl100k_base")("hello world") == 2
    with pytest.raises(Invalid, match="o200k_base"):
        exact_tokens("o900k")


@cache
def _exact() -> Counter:
    return exact_tokens()


@given(st.text())
def test_any_text_has_an_exact_count(text: str) -> None:
    """Never an error, and not more tokens than bytes."""
    assert _exact()(text) <= len(text.encode("utf-8", "replace")) * 3
    assert estimate_tokens(text) >= bool(text)


def test_a_budget_is_kept_to_the_token(tmp_path: Path) -> None:
    """With a counter the answer has no more tokens than the budget, counted as a whole."""
    store = cas.open(tmp_path / "store", create=True)
    commit(store, *(memory(f"m{n}", f"{text} {n}" * 5) for n, text in enumerate(SENTENCES)))
    count = exact_tokens()
    with Recall(store, counter=count) as recall:
        found = recall.recall("releases", budget_tokens=120)
    assert found.items
    assert count(found.text) <= 120
    assert found.left_out


def test_httpx_is_what_breaks_connections() -> None:
    """Nobody listens: an error that names the address, after all attempts."""
    clock = Clock()
    embedder = RemoteEmbedder("http://127.0.0.1:9/v1", "m", dimensions=2, clock=clock)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        embedder.embed(["one"])
    assert clock.slept == [500.0, 1000.0, 2000.0]
    assert issubclass(httpx.ConnectError, httpx.TransportError)
