"""An adapter on disk is whole, unchanged, harmless and of the right base, or it is refused; a crash leaves no half."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gguf
import numpy as np
import pytest
from made_disk import files_no_larger_than
from made_lora import base_folder, base_shape, tensors, write_lora
from pydantic import ValidationError

from intern import __version__
from intern.errors import AdapterRefused, InvalidInput, StoreFailure
from intern.learning.adapters.adapter import (
    AdapterFiles,
    read_verdict,
    store_adapter,
    stored,
    sweep,
    verify,
    write_card,
    write_verdict,
)
from intern.learning.adapters.gguf_head import read_head
from intern.learning.adapters.gguf_lora import convert
from intern.learning.adapters.lora import read_lora
from intern.learning.adapters.manifest import Base, Provenance, digest_of
from intern.learning.adapters.shapes import BaseShape, read_shape
from intern.models.source import content_hash
from intern.types import Json

WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def provenance(**fields: Json) -> Provenance:
    given: dict[str, Json] = {
        "skill": "triage",
        "name": "triage@v3",
        "base": Base(name="tiny", sha256="ab" * 32, dtype="float32"),
        "dataset": "d" * 64,
        "run": "run_1",
        "recipe": {"name": "lora", "rank": 2},
        "created": WHEN,
        "curves": {"loss": (2.0, 1.5)},
        "instructions": "You sort tickets.",
    }
    return Provenance(**{**given, **fields})


@pytest.fixture
def shape(tmp_path: Path) -> BaseShape:
    return base_shape(tmp_path / "base")


@pytest.fixture
def source(tmp_path: Path, shape: BaseShape) -> Path:
    """What training leaves: a PEFT folder, converted."""
    folder = write_lora(tmp_path / "trained", tensors(shape))
    (folder / "README.md").write_text("a model card")
    convert(read_lora(folder, shape), shape, folder / "adapter.gguf")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def adapter(root: Path, source: Path) -> AdapterFiles:
    return store_adapter(root, source, provenance())


def refused(folder: Path, words: str, **how: Json) -> None:
    with pytest.raises(AdapterRefused, match=words):
        verify(folder, **how)


# --- what is stored ------------------------------------------------------------------------------------------------


def test_a_stored_adapter_is_found_and_verified_with_all_that_is_known_of_it(
    root: Path, source: Path, shape: BaseShape
) -> None:
    made = store_adapter(root, source, provenance())
    assert stored(root) == [made.folder]
    found = verify(made.folder, base="ab" * 32, shape=shape)
    assert (found.name, found.digest, found.gguf) == ("triage@v3", made.folder.name, made.folder / "adapter.gguf")
    assert found.manifest.team == "default"
    assert re.fullmatch(re.escape(__version__) + r"\+[0-9a-f]{12}", found.manifest.code), "and the trainer's sources"
    assert dict(found.manifest) == {**dict(provenance()), "format": 1, "files": found.manifest.files}
    assert found.lora.ranks == dict.fromkeys(shape.modules, 2)
    for name, file in found.manifest.files.items():
        assert (file.size, file.sha256) == ((source / name).stat().st_size, content_hash(source / name))
        assert (made.folder / name).read_bytes() == (source / name).read_bytes()


def test_only_the_adapters_own_files_are_taken(adapter: AdapterFiles) -> None:
    names = {path.name for path in adapter.folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "adapter.gguf", "manifest.json"}


def test_an_adapter_need_not_be_converted(root: Path, source: Path) -> None:
    (source / "adapter.gguf").unlink()
    assert store_adapter(root, source, provenance()).gguf is None


def test_the_folders_name_is_the_hash_of_its_contents(root: Path, source: Path, adapter: AdapterFiles) -> None:
    assert adapter.folder.name == digest_of((adapter.folder / "manifest.json").read_bytes())
    assert store_adapter(root, source, provenance()) == adapter
    assert len(list(root.iterdir())) == 1


def test_other_weights_or_another_origin_are_another_adapter(
    root: Path, source: Path, shape: BaseShape, adapter: AdapterFiles
) -> None:
    later = store_adapter(root, source, provenance(name="triage@v4"))
    (source / "adapter.gguf").unlink()
    other = store_adapter(root, write_lora(source, tensors(shape, seed=1)), provenance())
    assert len({adapter.digest, later.digest, other.digest}) == 3
    assert stored(root) == sorted([adapter.folder, later.folder, other.folder])


def test_a_name_of_another_skill_or_a_time_without_zone_is_no_provenance() -> None:
    for wrong in ({"name": "other@v1"}, {"name": "triage@3"}, {"created": datetime(2026, 11, 1)}):
        with pytest.raises(ValidationError):
            provenance(**wrong)


def test_curves_that_are_not_finite_are_not_stored(root: Path, source: Path) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        store_adapter(root, source, provenance(curves={"loss": (float("nan"),)}))
    assert list(root.iterdir()) == []


def test_curves_are_small(root: Path, source: Path) -> None:
    with pytest.raises(InvalidInput, match="Thin out"):
        store_adapter(root, source, provenance(curves={"loss": (0.123456789,) * 400_000}))
    assert list(root.iterdir()) == []


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter.gguf", "manifest.json"])
def test_no_byte_changes_unseen(adapter: AdapterFiles, name: str) -> None:
    path = adapter.folder / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(adapter.folder, name)
    path.write_bytes(whole)
    verify(adapter.folder)


def test_a_changed_file_does_not_pass_with_a_manifest_to_match(adapter: AdapterFiles, shape: BaseShape) -> None:
    write_lora(adapter.folder, tensors(shape, seed=1))
    manifest = json.loads((adapter.folder / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        file.update(sha256=content_hash(adapter.folder / name), size=(adapter.folder / name).stat().st_size)
    (adapter.folder / "manifest.json").write_text(json.dumps(manifest))
    refused(adapter.folder, "not the one it was stored with")


def test_a_renamed_folder_is_refused(adapter: AdapterFiles, root: Path) -> None:
    renamed = adapter.folder.rename(root / ("0" * 32))
    refused(renamed, "the folder was renamed")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter.gguf", "manifest.json"])
def test_a_missing_file_is_named(adapter: AdapterFiles, name: str) -> None:
    (adapter.folder / name).unlink()
    refused(adapter.folder, name)


def test_a_missing_folder_is_refused(root: Path) -> None:
    refused(root / ("0" * 32), "No such file")


PICKLES = ["training_args.bin", "optimizer.pt", "adapter_model.bin", "x.PKL", "scheduler.pth", "modeling.py", "a.ckpt"]


@pytest.mark.parametrize("name", PICKLES)
def test_files_that_run_code_are_refused_by_name(adapter: AdapterFiles, source: Path, name: str) -> None:
    (adapter.folder / name).write_bytes(b"x")
    refused(adapter.folder, f"'{name}' can run code")
    (source / name).write_bytes(b"x")
    with pytest.raises(AdapterRefused, match=f"'{name}' can run code"):
        store_adapter(adapter.folder.parent, source, provenance(name="triage@v4"))


def test_any_other_file_is_refused_too(adapter: AdapterFiles) -> None:
    (adapter.folder / "tokenizer.json").write_text("{}")
    refused(adapter.folder, r"holds 'tokenizer\.json'")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "manifest.json", "verdict.json"])
def test_no_link_leads_out_of_the_folder(adapter: AdapterFiles, tmp_path: Path, name: str) -> None:
    path, elsewhere = adapter.folder / name, tmp_path / "elsewhere"
    elsewhere.write_bytes(path.read_bytes() if path.exists() else b"{}")
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    refused(adapter.folder, f"'{name}' is no plain file")


def test_the_folder_itself_is_no_link(adapter: AdapterFiles, tmp_path: Path) -> None:
    moved = adapter.folder.rename(tmp_path / adapter.folder.name)
    adapter.folder.symlink_to(moved)
    refused(adapter.folder, "symbolic link")


def test_a_pipe_in_the_folder_is_not_read(adapter: AdapterFiles) -> None:
    os.mkfifo(adapter.folder / "verdict.json")
    refused(adapter.folder, "no plain file")


def test_another_base_model_is_refused_with_what_to_do(adapter: AdapterFiles) -> None:
    refused(
        adapter.folder,
        "trained on the base model tiny .abababababab.*cdcdcdcdcdcd.*Train the skill again",
        base="cd" * 32,
    )


def test_a_base_of_other_sizes_is_refused(adapter: AdapterFiles, tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "wider")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 16}))
    refused(adapter.folder, "made for a weight of 8 by 12; in this base model it is 8 by 16", shape=read_shape(folder))


def test_an_untrained_adapter_is_not_stored(root: Path, source: Path, shape: BaseShape) -> None:
    weights = {n: np.zeros_like(v) if "lora_B" in n else v for n, v in tensors(shape).items()}
    with pytest.raises(AdapterRefused, match="changes nothing"):
        store_adapter(root, write_lora(source, weights), provenance())
    assert stored(root) == []


def forge(folder: Path, change: Callable[[dict[str, Json]], Json]) -> Path:
    """The folder with a changed manifest, under the name that fits it."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    changed = change(manifest)
    path.write_text(json.dumps(changed if isinstance(changed, list) else manifest))
    return folder.rename(folder.with_name(digest_of(path.read_bytes())))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=2), "format.*newer version"),
        (lambda m: m.update(surprise=1), "surprise.*newer version"),
        (lambda m: m["files"].update({"../secret.json": m["files"]["adapter_config.json"]}), "files must be"),
        (lambda m: m["files"].pop("adapter_model.safetensors"), "files must be"),
        (lambda m: m["files"].pop("adapter.gguf"), r"holds 'adapter\.gguf'"),
        (lambda m: [m], "cannot be used"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    adapter: AdapterFiles, change: Callable[[dict[str, Json]], Json], words: str
) -> None:
    refused(forge(adapter.folder, change), words)


@pytest.mark.parametrize("fault", ["metadata", "tensor", "value", "other"])
def test_the_converted_file_is_checked_as_well(root: Path, source: Path, shape: BaseShape, fault: str) -> None:
    head = read_head(source / "adapter.gguf")
    writer = gguf.GGUFWriter(source / "forged.gguf", "llama")
    writer.add_type("model" if fault == "other" else "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    if fault == "metadata":
        writer.add_array("adapter.alora.invocation_tokens", [1, 2, 3])
    for name in head.tensors:
        value = np.array(head.values(name))
        if fault == "value" and name == "blk.1.ffn_up.weight.lora_b":
            value[0, 0] = np.nan
        if fault != "tensor" or name != "blk.1.ffn_up.weight.lora_b":
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (source / "forged.gguf").replace(source / "adapter.gguf")
    words = {"metadata": "other metadata", "tensor": "ffn_up", "value": "not finite", "other": "no LoRA adapter"}
    with pytest.raises(AdapterRefused, match=f"adapter.gguf cannot be used: .*{words[fault]}"):
        store_adapter(root, source, provenance())


# --- the verdict -----------------------------------------------------------------------------------------------


def test_the_verdict_comes_later_and_changes_nothing_else(adapter: AdapterFiles) -> None:
    assert read_verdict(adapter.folder) is None
    write_verdict(adapter.folder, {"decision": "inconclusive"})
    write_verdict(adapter.folder, {"decision": "promote", "reason": "better by 0.2"})
    assert read_verdict(adapter.folder) == {"decision": "promote", "reason": "better by 0.2"}
    assert verify(adapter.folder) == adapter
    assert stored(adapter.folder.parent) == list(adapter.folder.parent.iterdir())


def test_a_card_comes_later_too_and_may_be_written_again(adapter: AdapterFiles) -> None:
    for text in ("# First", "# Zwei: schön"):
        write_card(adapter.folder, text)
        assert (adapter.folder / "README.md").read_text(encoding="utf-8") == text
        assert verify(adapter.folder) == adapter


def test_a_broken_verdict_is_no_answer(adapter: AdapterFiles) -> None:
    (adapter.folder / "verdict.json").write_text('{"decision": "prom')
    with pytest.raises(StoreFailure, match=r"verdict\.json"):
        read_verdict(adapter.folder)


# --- disks and crashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, 3000])
def test_a_disk_that_takes_no_more_leaves_nothing(root: Path, source: Path, size: int) -> None:
    with files_no_larger_than(size), pytest.raises(StoreFailure, match="cannot be stored"):
        store_adapter(root, source, provenance())
    assert list(root.iterdir()) == []
    store_adapter(root, source, provenance())


def test_a_verdict_on_a_full_disk_leaves_the_one_before(adapter: AdapterFiles) -> None:
    write_verdict(adapter.folder, {"decision": "reject"})
    with files_no_larger_than(10), pytest.raises(StoreFailure, match="verdict"):
        write_verdict(adapter.folder, {"decision": "promote", "reason": "far better"})
    assert read_verdict(adapter.folder) == {"decision": "reject"}
    assert verify(adapter.folder) == adapter
    assert stored(adapter.folder.parent) == list(adapter.folder.parent.iterdir())


def test_a_root_that_is_a_file_is_a_store_failure(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailure):
        store_adapter(tmp_path / "file", source, provenance())


# Stores an adapter again and again, each time in a child that dies at the next step that touches the disk, and prints
# a line a try: its number, then what is visible afterwards.
CRASHING = """
import os, sys
from pathlib import Path
from test_adapter import provenance
from intern.learning.adapters.adapter import store_adapter, stored, verify
root, source = Path(sys.argv[1]), Path(sys.argv[2])
TOUCHING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"}
for last in range(1, 1000):
    child = os.fork()
    if not child:
        steps = 0
        def watch(event, arguments):
            global steps
            if event in TOUCHING:
                steps += 1
                if steps == last:
                    os._exit(9)
        sys.addaudithook(watch)
        store_adapter(root, source, provenance())
        os._exit(0)
    done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(last, done, [verify(path).name for path in stored(root)], flush=True)
    if done == 0:
        break
"""


def test_a_crash_at_any_step_leaves_nothing_or_everything(root: Path, source: Path) -> None:
    here = Path(__file__)
    paths = os.pathsep.join(map(str, (here.parent, here.parents[2], here.parents[3])))
    ran = subprocess.run(
        [sys.executable, "-c", CRASHING, str(root), str(source)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split(maxsplit=2) for line in ran.stdout.splitlines()]
    assert len(lines) > 15
    assert [code for _, code, _ in lines] == ["9"] * (len(lines) - 1) + ["0"]
    seen = [names for _, _, names in lines]
    assert set(seen) == {"[]", "['triage@v3']"}
    assert seen == sorted(seen, reverse=True)  # once it is there it stays
    assert len(stored(root)) == 1
    assert sweep(root) > 5
    assert list(root.iterdir()) == stored(root)


def test_an_adapter_that_no_row_names_goes_when_its_run_has_ended_and_no_other_does(root: Path, source: Path) -> None:
    made = [
        store_adapter(root, source, provenance().model_copy(update={"run": run, "recipe": {"seed": number}}))
        for number, run in enumerate(("run_ended", "run_ended", "run_that_goes_on", "run_of_another_workspace"))
    ]
    (root / ("0" * 32)).mkdir()  # whose it is, nobody can tell
    kept = {"0" * 32, *(files.digest for files in made[1:])}
    named = {made[1].digest}
    assert sweep(root, runs={"run_ended": WHEN - timedelta(seconds=1)}, named=named) == 0, "it was made later"
    assert sweep(root, runs={"run_ended": WHEN}, named=named) == 1
    assert {path.name for path in stored(root)} == kept


def test_an_adapter_of_a_version_that_kept_no_stages_is_read(adapter: AdapterFiles, tmp_path: Path) -> None:
    text = json.loads((adapter.folder / "manifest.json").read_text())
    del text["stages"]
    old = json.dumps({**text, "code": "0.1.0", "curves": {"step_at": [1, 2, 1], "step_loss": [3, 2, 1]}}).encode()
    folder = adapter.folder.with_name(digest_of(old))
    adapter.folder.rename(folder)
    (folder / "manifest.json").write_bytes(old)
    found = verify(folder).manifest
    assert (found.stages, found.code, found.curves["step_at"]) == ((), "0.1.0", (1.0, 2.0, 1.0))
