"""Pulling models of safetensors from a hub, over real sockets, with lists that lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_files import gguf_bytes
from hub_server import COMMIT, HubServer
from model_folders import folder_files, safetensors_bytes, write_folder
from pensieve.errors import DiskFull, DownloadFailed, UsageError
from pensieve.models.catalog import CatalogEntry, HubSource
from pensieve.models.download import PulledFormat, pull, pull_from
from pensieve.models.folders import read_folder
from pensieve.models.hub import Hub, HubFolder
from pensieve.models.manifest import Manifest, WeightFile, read_manifest, write_manifest
from pensieve.models.progress import silent
from pensieve.models.registry import Registry

FILES = folder_files()
BIG = safetensors_bytes({"a": ("F32", (100_000,))})
SHARDS = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]


@pytest.fixture
def repo(hub: HubServer) -> HubServer:
    """A hub with a tiny whole model at `o/Tiny`."""
    hub.files |= {f"o/Tiny/{name}": content for name, content in FILES.items()}
    return hub


def source_at(hub: HubServer, *pauses_seconds: float) -> HubFolder:
    """The tiny model of that hub, tried again after the pauses."""
    return HubFolder(name="tiny", repo="o/Tiny", hub=Hub(hub.url, pauses_seconds))


@pytest.mark.parametrize("text", ["o/Tiny", "hf:o/Tiny"])
def test_a_repository_of_safetensors_becomes_a_model(repo: HubServer, registry: Registry, text: str) -> None:
    """All its files arrive byte for byte, the manifest lists them, and the engine is given the folder."""
    spec = pull(text, registry)
    assert (spec.name, spec.format, spec.origin, spec.quantization) == ("tiny", "mlx", "pull", "int4 g64")
    assert {path.name: path.read_bytes() for path in Path(spec.location).iterdir() if path.name in FILES} == FILES
    manifest = read_manifest(registry.folder / "tiny")
    assert (manifest.source, manifest.files[0].name) == ("hf:o/Tiny", "config.json")
    assert registry.find("o/Tiny") == registry.find("TINY") == spec
    assert len(repo.ranges()) == len(FILES)


def test_every_file_is_of_the_commit_that_was_listed(repo: HubServer, registry: Registry) -> None:
    """A repository that changes meanwhile cannot mix two versions."""
    pull("o/Tiny", registry)
    assert all(f"/resolve/{COMMIT}/" in seen.path for seen in repo.seen if "/resolve/" in seen.path)


def test_progress_counts_the_bytes_of_all_files(repo: HubServer, registry: Registry) -> None:
    """Bytes grow to the total within each stage, across files."""
    seen: list[tuple[str, int, int]] = []
    pull("o/Tiny", registry, lambda *step: seen.append(step))
    total = sum(map(len, FILES.values()))
    for stage in ("downloading", "checking"):
        done = [step[1] for step in seen if step[0] == stage]
        assert done == sorted(done)
        assert done[-1] == total
    assert {step[2] for step in seen} == {total}
    assert repo.seen


def test_a_cut_in_the_second_shard_is_gone_on_from_there(repo: HubServer, registry: Registry) -> None:
    """What arrived whole is not asked for again, and no model is seen before all is here."""
    del repo.files["o/Tiny/model.safetensors"]
    repo.files |= {f"o/Tiny/{SHARDS[0]}": safetensors_bytes(), f"o/Tiny/{SHARDS[1]}": BIG}
    repo.cuts = [10**9, 10**9, 1000]
    with pytest.raises(DownloadFailed, match="pull again: it goes on from here"):
        pull_from(source_at(repo), registry, silent)
    assert registry.entries() == ()
    before = len(repo.ranges())
    assert pull("o/Tiny", registry).weight_bytes == 400_488
    assert repo.ranges()[before:] == ["bytes=1000-", "", ""]


def test_a_hostile_list_of_files_is_picked_from(repo: HubServer, registry: Registry) -> None:
    """Code, pickles, folders, manifests and paths that lead elsewhere are never asked for."""
    repo.lies = [
        "../../evil.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "model/../../x.safetensors",
        "model.json",
        "modeling_tiny.py",
        "pytorch_model.bin",
        "model.safetensors\n",
        "model\x1b[2J.safetensors",
        *(f"notes-{number}.md" for number in range(10_000)),
    ]
    spec = pull("o/Tiny", registry)
    assert sorted(path.name for path in Path(spec.location).iterdir()) == sorted([*FILES, "model.json"])
    assert len(repo.ranges()) == len(FILES)
    assert sorted(path.name for path in registry.folder.iterdir()) == [".partial", "tiny"]


@pytest.mark.parametrize(
    ("lies", "missing", "words"),
    [
        ([], "tokenizer.json", r"has no tokenizer\.json, which is needed to read text: look for another copy"),
        ([], "config.json", "holds neither GGUF nor model"),
        ([], "model.safetensors", "holds neither GGUF nor model"),
        (["pytorch_model.bin"], "model.safetensors", "are pickles, which can run code"),
        ([SHARDS[0]], "model.safetensors", f"not whole: 1 files of weights are missing, first {SHARDS[1]}"),
        ([f"model-{part:05}-of-10000.safetensors" for part in range(10_000)], "", "10,001 files of weights; 1,000"),
    ],
)
def test_what_could_not_be_loaded_is_told_before_it_is_fetched(
    repo: HubServer, registry: Registry, lies: list[str], missing: str, words: str
) -> None:
    """Missing and absurd files end the pull at once."""
    repo.files.pop(f"o/Tiny/{missing}", None)
    repo.lies = lies
    with pytest.raises(UsageError, match=words):
        pull("o/Tiny", registry)
    assert repo.ranges() == []
    assert registry.entries() == ()


def test_a_wrong_checksum_of_one_file_makes_no_model(repo: HubServer, registry: Registry) -> None:
    """Only the wrong file is dropped; the next pull fetches that one alone."""
    repo.etags = {"model.safetensors": "0" * 64}
    with pytest.raises(DownloadFailed, match="wrong checksum and was deleted"):
        pull("o/Tiny", registry)
    assert registry.entries() == ()
    before = len(repo.ranges())
    with pytest.raises(DownloadFailed, match="wrong checksum"):
        pull("o/Tiny", registry)
    assert len(repo.ranges()) == before + 1


def test_files_that_are_no_model_never_become_one(repo: HubServer, registry: Registry) -> None:
    """Right checksums do not make broken weights a model."""
    repo.files["o/Tiny/model.safetensors"] = BIG[:-1]
    with pytest.raises(DownloadFailed, match=r"is no model: model\.safetensors: the file ends 1 bytes too early"):
        pull("o/Tiny", registry)
    assert registry.entries() == ()
    assert list(registry.folder.glob(".partial/*/*")) == []


def test_a_disk_too_small_for_all_files_is_known_before(repo: HubServer, tiny_disk: Path) -> None:
    """The sizes of all files are summed before the first byte."""
    repo.files["o/Tiny/model.safetensors"] = BIG
    with pytest.raises(DiskFull):
        pull("o/Tiny", Registry(tiny_disk / "models"))
    assert repo.ranges() == []


def test_a_repository_with_both_formats_follows_the_wish(repo: HubServer, registry: Registry) -> None:
    """A file or quantization is always GGUF; alone, the repository means what was asked for."""
    repo.files["o/Tiny/Tiny-Q4_1.gguf"] = gguf_bytes()
    assert pull("o/Tiny", registry, wanted="gguf").name == "tiny-q4_1"
    assert pull("o/Tiny:Q4_1", registry).format == "gguf"
    assert pull("o/Tiny", registry, wanted="mlx").name == "tiny"
    assert pull("tiny", registry).format == "mlx"
    with pytest.raises(UsageError, match="for safetensors name o/Tiny alone"):
        pull("o/Tiny:Q4_1", registry, wanted="mlx")


@pytest.mark.parametrize(
    ("files", "wanted", "words"),
    [
        ({"tiny.gguf": gguf_bytes()}, "mlx", "pull its GGUF model with --format gguf"),
        (FILES, "gguf", "pull its safetensors with --format mlx"),
    ],
)
def test_a_format_that_is_not_there_is_not_replaced_by_the_other(
    hub: HubServer, registry: Registry, files: dict[str, bytes], wanted: PulledFormat, words: str
) -> None:
    """The wish is refused, with the word that would be granted."""
    hub.files |= {f"o/r/{name}": content for name, content in files.items()}
    with pytest.raises(UsageError, match=words):
        pull("o/r", registry, wanted=wanted)
    assert hub.ranges() == []


def test_a_model_made_here_cannot_be_pulled(registry: Registry) -> None:
    """It says from what it was made."""
    folder = write_folder(registry.folder / "mine")
    file = WeightFile("config.json", (folder / "config.json").stat().st_size, "")
    spec = read_folder(folder).spec("mine", origin="convert")
    write_manifest(folder, Manifest(source="convert:/some/where", files=(file,), spec=spec))
    with pytest.raises(UsageError, match="mine was made on this machine, from convert:/some/where"):
        pull("mine", registry)


def test_a_revision_can_be_named(repo: HubServer, registry: Registry) -> None:
    """A branch, tag or commit follows the repository; one that is not there is said."""
    repo.revisions.add("v1.0")
    assert pull("o/Tiny@v1.0", registry).name == "tiny"
    assert read_manifest(registry.folder / "tiny").source == "hf:o/Tiny@v1.0"
    assert registry.find("o/Tiny@v1.0").name == "tiny"
    with pytest.raises(DownloadFailed, match="no such revision"):
        pull("o/Tiny@v2", registry)


def test_a_catalog_entry_names_a_repository(repo: HubServer, registry: Registry) -> None:
    """Its short name and its repository lead to the one model, under the short name; what is here is not asked for."""
    source = HubSource(repo="o/Tiny", num_bytes=488)
    entry = CatalogEntry(
        name="small", aliases=("s",), source=source, licence="MIT", context_tokens=2048, quantization="int4 g64"
    )
    known = Registry(registry.folder, (entry,))
    spec = pull("s", known)
    assert (spec.name, spec.format) == ("small", entry.planned().format)
    assert (spec.quantization, spec.weight_bytes) == (entry.quantization, entry.planned().weight_bytes)
    asked = len(repo.seen)
    assert pull("small", known) == spec
    assert len(repo.seen) == asked
    assert pull("o/Tiny", known) == known.find("o/Tiny") == spec
    with pytest.raises(UsageError, match="known as mlx"):
        pull("small", known, wanted="gguf")
