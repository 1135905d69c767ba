"""The embedder on onnxruntime: texts in, unit vectors out, without torch in this process.

In: a sentence-transformers folder, exported once by export.py in a subprocess into a cache folder that carries the
weights' content hash. Knows no model references (source.py) and does not decide what happens to a model that cannot be
exported (loading.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from intern.errors import ModelUnavailable
from intern.models.embedder import Vectors

# Changes whenever the exported graph would, so that older exports are made anew.
EXPORT_VERSION = 1
_EXPORT_SECONDS = 900.0
# Padded tokens of one run. Larger batches are no faster on a CPU, and attention takes 25 MB a layer at eight times 256.
_BATCH_TOKENS = 384
_CHARACTERS_A_TOKEN = 64  # far more than any tokenizer's mean; spares tokenising megabytes that would be cut anyway


class NotExportable(Exception):
    """The model works only in its own library; the message says why."""


class OnnxEmbedder:
    """An exported sentence-transformers model on onnxruntime, fp32. Thread-safe.

    `threads` is onnxruntime's intra-op pool. Raises ModelUnavailable when the exported files are missing or damaged.
    """

    def __init__(self, folder: Path, *, id: str, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        # The arena keeps the largest batch's activations for ever, and spinning threads burn the cores that the
        # language model shares.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            about = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
            self._dimension = int(about["dimension"])
            self._max_tokens = int(about["max_tokens"])
            pad_id = int(about["pad_id"])
            self._whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._cut = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime and tokenizers raise their own bare exceptions
            raise ModelUnavailable(
                f"The exported embedder in '{folder}' cannot be read ({type(error).__name__}). "
                "Delete that folder: it is made again at the next start."
            ) from error
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cut.no_padding()
        self._cut.enable_truncation(self._max_tokens)
        self._pad_id = pad_id
        self._id = id

    @property
    def id(self) -> str:
        return self._id

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 of shape (len(texts), dimension), rows of length 1; texts are cut at max_tokens."""
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        limit = self._max_tokens * _CHARACTERS_A_TOKEN
        ids = [e.ids for e in self._cut.encode_batch([_encodable(text[:limit]) for text in texts])] if texts else []
        for rows in _batches([len(i) for i in ids]):
            longest = max(len(ids[row]) for row in rows)
            tokens = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
            mask = np.zeros((len(rows), longest), dtype=np.int64)
            for line, row in enumerate(rows):
                tokens[line, : len(ids[row])] = ids[row]
                mask[line, : len(ids[row])] = 1
            vectors[rows] = self._session.run(None, {"input_ids": tokens, "attention_mask": mask})[0]
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(self._whole.encode(_encodable(text), add_special_tokens=False).ids)


def exported(source: Path, digest: str, cache: Path, *, progress: Callable[[str], None] | None = None) -> Path:
    """The folder below `cache` with the ONNX export of `source`, whose content hash is `digest`; made when missing.

    Takes about 15 s the first time, in a subprocess, and appears at once or not at all.
    Raises NotExportable when the model cannot be exported faithfully.
    """
    folder = cache / f"{digest[:24]}-onnx{EXPORT_VERSION}"
    if (folder / "model.onnx").exists():
        return folder
    if progress:
        progress("Preparing the embedder for this machine, once; this takes less than a minute.")
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache, prefix=".export-"))
    try:
        program = Path(__file__).with_name("export.py")
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", str(program), str(source), str(temporary)],
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_EXPORT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotExportable(f"the export did not run to its end ({type(error).__name__})") from error
        if done.returncode != 0:
            spoken = (done.stdout if done.returncode == 3 else done.stderr).strip().splitlines()
            raise NotExportable(spoken[-1][:300] if spoken else f"the export ended with code {done.returncode}")
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / "model.onnx").exists():  # else another process made the same files meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if progress:
        progress("The embedder is ready.")
    return folder


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers in batches of similar length whose padded size stays within _BATCH_TOKENS."""
    batches: list[list[int]] = []
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[row] * (len(batch) + 1) > _BATCH_TOKENS:
            batches.append(batch)
            batch = []
        batch.append(row)
    return [*batches, batch] if batch else batches


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
