"""The one-time export of a sentence-transformers folder to ONNX, run as a program of its own.

    python -P export.py SOURCE TARGET

In: a sentence-transformers folder. Out, in the existing folder TARGET: model.onnx (token ids and mask in, unit vectors
out, batch and sequence axes free), tokenizer.json, embedder.json (dimension, max_tokens, pad_id). Exit code 0; or 3
with one line on standard output that says why this model cannot be exported. It is a program so that the server
never loads torch, and it imports nothing of this package: `-P` keeps the torch.py and onnx.py beside it from hiding
the libraries.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

UNSUPPORTED = 3
LEAST_COSINE = 0.9999  # exported against original vectors
_WORDS = "the printer on the third floor is jammed again and nobody can print invoices before noon please send help"


def main(source: Path, target: Path) -> int:
    why_not = unsupported(source)
    if why_not:
        print(why_not)
        return UNSUPPORTED
    warnings.simplefilter("ignore")
    import torch
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(source), device="cpu", local_files_only=True).float().eval()
    tokenizer = model.tokenizer
    backbone = model[0].auto_model
    mean = pooling_modes(source) == {"mean"}

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if mean:
                mask = attention_mask.unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
            else:
                pooled = states[:, 0]
            return torch.nn.functional.normalize(pooled, p=2.0, dim=1)

    sample = tokenizer(["a short text", _WORDS], padding=True, return_tensors="pt")
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        Encoder().eval(),
        (sample["input_ids"], sample["attention_mask"]),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(target / "model.onnx"), external_data=False)
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    dimension = model.get_sentence_embedding_dimension()
    limit = model.max_seq_length or 512
    about: dict[str, Any] = {
        "dimension": dimension,
        "max_tokens": int(limit),
        "pad_id": int(tokenizer.pad_token_id or 0),
    }
    (target / "embedder.json").write_text(json.dumps(about), encoding="utf-8")

    worst = least_cosine(model, target)
    if worst < LEAST_COSINE:
        print(f"its exported vectors differ from the original ones (cosine {worst:.5f})")
        return UNSUPPORTED
    return 0


def unsupported(source: Path) -> str | None:
    """Why the folder cannot be exported, or None: a transformer with mean or cls pooling and a fast tokenizer can."""
    try:
        modules = json.loads((source / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            return f"its modules are {', '.join(kinds)}, not Transformer, Pooling, Normalize"
        if pooling_modes(source) not in ({"mean"}, {"cls"}):
            return "it pools neither by mean nor by cls"
        for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
            extra = source / name
            settings = json.loads(extra.read_text(encoding="utf-8")) if extra.exists() else {}
            if settings.get("do_lower_case") or settings.get("default_prompt_name"):
                return f"{name} asks for more than tokenising"
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return f"its folder cannot be read as a sentence-transformers model ({type(error).__name__})"
    return None if (source / "tokenizer.json").exists() else "it has no tokenizer.json"


def pooling_modes(source: Path) -> set[str]:
    """The pooling modes that the model joins: 'mean', 'cls', or other names; in the old or the new way of writing
    them."""
    folder = json.loads((source / "modules.json").read_text(encoding="utf-8"))[1]["path"]
    pooling = json.loads((source / folder / "config.json").read_text(encoding="utf-8"))
    if isinstance(pooling.get("pooling_mode"), str):
        return set(pooling["pooling_mode"].split("+"))
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return {names.get(key, key) for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True}


def least_cosine(model: Any, target: Path) -> float:
    """Smallest cosine between exported and original vectors over texts from one word to beyond the model's limit."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    about = json.loads((target / "embedder.json").read_text(encoding="utf-8"))
    words = _WORDS.split()
    texts = [" ".join((words * 30)[:count]) for count in (1, 2, 7, 19, 60, 400)] + [
        "Ünïcode, 123-456; naïve café?",
        "x",
    ]
    original = np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.enable_truncation(about["max_tokens"])
    tokenizer.enable_padding(pad_id=about["pad_id"])
    session = onnxruntime.InferenceSession(str(target / "model.onnx"), providers=["CPUExecutionProvider"])
    worst = 1.0
    for start, stop in ((0, 1), (1, 3), (3, len(texts))):  # other batch sizes and lengths than at the export
        encoded = tokenizer.encode_batch(texts[start:stop])
        ids = np.asarray([e.ids for e in encoded], dtype=np.int64)
        mask = np.asarray([e.attention_mask for e in encoded], dtype=np.int64)
        vectors = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        worst = min(worst, float((vectors * original[start:stop]).sum(axis=1).min()))
    return worst


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
