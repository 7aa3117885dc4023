"""The embedder of the package: its data, its word pieces, its vectors."""

from __future__ import annotations

import random
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import Corrupt, Unsupported
from cas.recall import embed
from cas.recall.embed import MODEL, StaticEmbedder, default_embedder
from cas.recall.tokens import estimate_tokens, measure_many
from cas.recall.wordpiece import (
    WORD_CHARS_MAX,
    WordPieces,
    _plain,
    _spaced,
    _words,
    runs_of,
)


def words_of(text: str) -> list[str]:
    """Lower-case words and single marks of a text, accents left out."""
    return [word for run in runs_of(text) for word in _words(run)]


def test_the_model_is_the_one_that_is_pinned(tmp_path: Path) -> None:
    """Data that differs in one byte from what the package pins is refused."""
    assert default_embedder().identity.startswith("minilm-static-256:")
    data = bytearray(MODEL.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "model.npz"
    damaged.write_bytes(data)
    with pytest.raises(Corrupt, match="install the package again"):
        StaticEmbedder(damaged).embed(["a text"])


def test_what_the_model_says_of_itself_is_what_it_does() -> None:
    """Its identity and dimensions are told before its data is read, and are those of the data."""
    model = StaticEmbedder()
    told = model.identity, model.dimensions
    assert model.embed(["a text"]).shape == (1, model.dimensions)
    assert told == (f"minilm-static-256:{sha256(MODEL.read_bytes()).hexdigest()[:16]}", 256)


def test_a_text_has_one_vector_alone_and_in_a_batch(rng: random.Random) -> None:
    """A text's vector does not depend, in one bit, on what is embedded beside it."""
    words = ["release", "branch", "the", "of", "deploy", "café", "東京", "x_1", "zstandard"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(60))) for _ in range(300)]
    together = default_embedder().embed(texts)
    for number in rng.sample(range(300), 40):
        assert (default_embedder().embed([texts[number]])[0] == together[number]).all()


def test_texts_that_mean_the_same_lie_nearer_than_others() -> None:
    """A paraphrase that shares no word is nearer than a text about something else."""
    near, text, far = default_embedder().embed(
        [
            "how do we ship a new version",
            "deploying the release to production",
            "the cat sat on the mat and slept",
        ]
    )
    assert near @ text > far @ text + 0.2


@given(st.text())
def test_any_text_has_a_vector(text: str) -> None:
    """Every text gives a vector of length one, or of zeros where no word of it is known."""
    (vector,) = default_embedder().embed([text])
    length = float(np.linalg.norm(vector))
    assert length == pytest.approx(1, abs=1e-5) or length == 0
    if words_of(text) == []:
        assert length == 0


def test_word_pieces_are_the_longest_that_fit() -> None:
    """A word is cut into the longest pieces from its front; what cannot be cut is unknown."""
    pieces = WordPieces(["[UNK]", "un", "##able", "##a", "able", "a", ",", "cafe", "東"])
    assert pieces.ids("Unable,able") == [1, 2, 6, 4]
    assert pieces.ids("CAFÉ 東a") == [7, 8, 5]
    assert pieces.ids("unbble " + "a" * (WORD_CHARS_MAX + 1)) == [0, 0]
    assert pieces.ids("") == []


def test_control_characters_do_not_part_words() -> None:
    """What a BERT tokenizer drops is dropped: controls and accents; blanks of all kinds part."""
    assert words_of("a\x00b\u200bc é\u3000d\x1fe") == ["abc", "e", "de"]
    assert words_of("a\tb\nc\x07d") == ["a", "b", "cd"]


_ODD = st.text(st.sampled_from("aB9é東İΣς_.,-'\0\x0b\x1c\x7f\x85\xa0\u200b\u0301\u2028 \t\n\r"))


@given(st.text() | _ODD)
def test_words_are_those_of_a_slow_reading(text: str) -> None:
    """Runs that are remembered give the words that the text gives letter by letter, each time."""
    slow = "".join(map(_spaced, _plain(text))).split()
    assert words_of(text) == slow
    pieces = WordPieces(["[UNK]", *sorted(set(slow))])
    for _ in range(2):
        assert pieces.ids(text) == [id for word in slow for id in pieces.ids(word)]


@given(st.lists(st.text() | _ODD, min_size=20, max_size=30))
def test_tokens_of_a_text_are_the_same_among_many(texts: list[str]) -> None:
    """An estimate depends on the text alone; without numpy it is the same number."""
    many = measure_many(texts)
    assert many == [each for text in texts for each in measure_many([text])]
    assert [tokens for tokens, _ in many] == [estimate_tokens(text) for text in texts]
    for text, (tokens, words) in zip(texts, many, strict=True):
        assert (tokens == 0) == (text == "")
        if text.isascii():
            assert words == len(text.split())


def test_without_numpy_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing numpy is a typed error that names the extra."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setattr(embed, "np", embed.Later("numpy"))
    with pytest.raises(Unsupported, match=r"agent-cas\[search\]"):
        StaticEmbedder()


def test_without_numpy_recall_names_what_to_install_and_find_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without numpy a handle without a model finds by words, and only `recall` is refused."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.setattr(embed, "np", embed.Later("numpy"))
    with cas.open(tmp_path / "store", create=True) as store:
        with cas.Workspace(store).unit_of_work("a") as uow:
            note = uow.memories.note("ships on Tuesdays")
            uow.commit()
        with cas.Recall(store, embedder=None) as recall:
            assert recall.find(cas.Memory, match="tuesdays").items == (note,)
            with pytest.raises(Unsupported, match=r"agent-cas\[search\]"):
                recall.recall("tuesdays")
