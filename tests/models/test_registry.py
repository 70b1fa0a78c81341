"""Finding and removing models on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_files import write_gguf
from model_folders import write_folder
from pensieve.errors import LoadFailed, ModelNotFound, PensieveError, UsageError
from pensieve.models.folders import read_folder
from pensieve.models.manifest import Manifest, WeightFile, is_safe_name, read_manifest, write_manifest
from pensieve.models.metadata import read_gguf
from pensieve.models.registry import Registry
from pensieve.models.spec import ModelSpec
from pensieve.models.staging import locked, staged


def add(registry: Registry, name: str, source: str = "hf:o/r/tiny.gguf") -> ModelSpec:
    """Put a tiny model of that name into the registry, as `pull` leaves it."""
    folder = registry.folder / name
    folder.mkdir(parents=True)
    weights = write_gguf(folder / "tiny.gguf")
    file = WeightFile("tiny.gguf", weights.stat().st_size, "")
    write_manifest(folder, Manifest(source=source, files=(file,), spec=read_gguf(weights).spec(name)))
    return registry.find(name)


def test_an_empty_registry_has_no_models(registry: Registry) -> None:
    """A folder that is not there yet is an empty one."""
    assert registry.all() == ()
    assert registry.entries() == ()


def test_models_are_found_by_name_in_any_case(registry: Registry) -> None:
    """The list is sorted, and capitals do not matter."""
    tiny, other = add(registry, "tiny"), add(registry, "other")
    assert registry.all() == (other, tiny)
    assert registry.find("TINY") == tiny
    assert Path(tiny.location) == registry.folder / "tiny" / "tiny.gguf"


def test_an_alias_finds_the_catalog_model(registry: Registry) -> None:
    """Every name of a catalog entry leads to the one folder."""
    spec = add(registry, "smollm2-135m")
    assert registry.find("starter") == registry.find("smollm2") == registry.find("SmolLM2-135M") == spec


def test_a_moved_home_moves_the_locations(registry: Registry, tmp_path: Path) -> None:
    """Locations follow the folder, not what the manifest said when it was written."""
    add(registry, "tiny")
    moved = registry.folder.rename(tmp_path / "elsewhere")
    assert Registry(moved).find("tiny").location == str(moved / "tiny" / "tiny.gguf")


def test_a_local_file_is_found_by_its_path(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute, relative and home paths, and a bare file name, name the same file."""
    weights = write_gguf(tmp_path / "My Model.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = [registry.find(text) for text in (str(weights), "./My Model.gguf", "~/My Model.gguf", "My Model.gguf")]
    assert {(spec.name, spec.origin, spec.location) for spec in found} == {("My Model", "local", str(weights))}


@pytest.mark.parametrize(
    "text",
    [
        "./nothing.gguf",
        "~nobody-here/x.gguf",
        "/" + "a" * 5000,
        "x\0y.gguf",
        "../../etc",
        "owner/repo",
        "/",
        "a/b/c.bin",
    ],
)
def test_paths_that_lead_nowhere_are_not_found(registry: Registry, text: str) -> None:
    """Missing, unreadable and absurd paths end in an error of ours."""
    with pytest.raises((ModelNotFound, LoadFailed, UsageError)):
        registry.find(text)


@given(st.text(max_size=200))
def test_any_text_finds_a_model_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No name can break the lookup or leave the folder."""
    with pytest.raises(PensieveError):
        Registry(tmp_path_factory.getbasetemp() / "none").find(text)


def test_an_unknown_name_says_what_may_have_been_meant(registry: Registry) -> None:
    """The nearest known name is offered; a known one that is not here is not offered to itself."""
    add(registry, "qwen-tiny")
    with pytest.raises(ModelNotFound, match="did you mean qwen-tiny"):
        registry.find("qwen-tinny")
    with pytest.raises(ModelNotFound) as missing:
        registry.find("starter")
    assert missing.value.nearest == ""
    assert str(missing.value) == "model: smollm2-135m is not here: `pensieve pull smollm2-135m` fetches it"


@pytest.mark.parametrize("text", ["typo.gguf", "./typo.gguf", "models/typo.gguf", "../typo", "~/typo"])
def test_a_path_that_does_not_exist_is_said_to_lead_to_no_file(registry: Registry, text: str) -> None:
    """It is no name to look for, and nothing to pull."""
    with pytest.raises(UsageError) as missing:
        registry.find(text)
    assert str(missing.value) == f"there is no file {text}"


def test_a_pulled_model_is_found_by_what_it_was_pulled_as(registry: Registry) -> None:
    """Repository, quantization or file, as long as one model here is meant."""
    here = add(registry, "tiny-q8_0", "hf:o/r/tiny-Q8_0.gguf")
    assert [registry.find(text) for text in ("o/r", "o/r:q8_0", "hf:o/r/tiny-Q8_0.gguf")] == [here] * 3
    for text in ("o/r:Q4_K_M", "o/other"):
        with pytest.raises(ModelNotFound):
            registry.find(text)
    with pytest.raises(UsageError, match=r"`pensieve pull o/r/tiny\.gguf` fetches it"):
        registry.find("o/r/tiny.gguf")
    add(registry, "tiny-q4_0", "hf:o/r/tiny-Q4_0.gguf")
    with pytest.raises(ModelNotFound):
        registry.find("o/r")


def test_what_an_interrupted_pull_left_can_be_removed(registry: Registry) -> None:
    """By the model's name, unless the pull still runs."""
    with staged(registry.folder, "half") as staging:
        (staging / "half.gguf.part").write_bytes(bytes(1000))
        with pytest.raises(UsageError, match="another process"):
            registry.remove("half")
    assert registry.remove("half") == 1000
    assert not staging.exists()
    with pytest.raises(ModelNotFound):
        registry.remove("half")


def test_a_folder_without_a_manifest_is_no_model(registry: Registry) -> None:
    """What an interrupted write left is neither listed nor found nor removed."""
    half = registry.folder / "half"
    half.mkdir(parents=True)
    (half / "model.json.part").write_text("{}")
    write_gguf(half / "tiny.gguf")
    assert registry.entries() == ()
    with pytest.raises(ModelNotFound):
        registry.remove("half")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.json").write_bytes(b"{"), "no valid JSON of ours"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"), "no valid JSON of ours"),
        (lambda folder: (folder / "model.json").write_bytes(b"[]"), "no valid JSON of ours"),
        (lambda folder: (folder / "tiny.gguf").unlink(), "tiny.gguf is missing"),
        (lambda folder: (folder / "tiny.gguf").write_bytes(b"short"), "has 5 bytes"),
        (lambda folder: ((folder / "model.json").unlink(), (folder / "model.json").mkdir()), "cannot be read"),
    ],
)
def test_a_damaged_model_is_listed_as_damaged(registry: Registry, damage: Callable[[Path], object], words: str) -> None:
    """The list shows it with its problem, the others stay usable, and it can be removed."""
    add(registry, "tiny")
    add(registry, "whole")
    damage(registry.folder / "tiny")
    assert [entry.manifest is None for entry in registry.entries()] == [True, False]
    assert words in registry.entries()[0].problem
    with pytest.raises(LoadFailed, match=words):
        registry.find("tiny")
    assert [spec.name for spec in registry.all()] == ["whole"]
    registry.remove("tiny")
    assert [entry.name for entry in registry.entries()] == ["whole"]


@pytest.mark.parametrize("name", ["../outside.gguf", "/etc/passwd", ".hidden", "a/b.gguf", ""])
def test_a_manifest_cannot_point_outside_its_folder(registry: Registry, name: str) -> None:
    """File names are checked on reading, whoever wrote them."""
    spec = add(registry, "tiny")
    write_manifest(registry.folder / "tiny", Manifest(source="x", files=(WeightFile(name, 0, ""),), spec=spec))
    with pytest.raises(LoadFailed, match="names no files of its own folder"):
        read_manifest(registry.folder / "tiny")


def test_removing_frees_the_bytes(registry: Registry) -> None:
    """The model's folder goes, and the size of its files comes back."""
    spec = add(registry, "tiny")
    weights_bytes = Path(spec.location).stat().st_size
    assert registry.remove("tiny") >= weights_bytes
    assert not (registry.folder / "tiny").exists()
    with pytest.raises(ModelNotFound):
        registry.remove("tiny")


@pytest.mark.parametrize("text", ["mine.gguf", "./mine.gguf", "../models", "~"])
def test_a_file_of_the_users_is_never_removed(registry: Registry, tmp_path: Path, text: str) -> None:
    """Whatever looks like a path is refused."""
    weights = write_gguf(tmp_path / "mine.gguf")
    with pytest.raises(UsageError, match="is a file of yours"):
        registry.remove(text)
    assert weights.exists()


def test_a_linked_folder_is_not_removed(registry: Registry, tmp_path: Path) -> None:
    """A link into someone's own folder is left alone, and so is what it leads to."""
    add(registry, "tiny")
    elsewhere = (registry.folder / "tiny").rename(tmp_path / "elsewhere")
    (registry.folder / "tiny").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="is a link"):
        registry.remove("tiny")
    assert (elsewhere / "tiny.gguf").exists()


def test_a_model_being_written_is_not_removed(registry: Registry) -> None:
    """Removing waits its turn."""
    add(registry, "tiny")
    with locked(registry.folder, "tiny"), pytest.raises(UsageError, match="another process"):
        registry.remove("tiny")
    assert registry.find("tiny").name == "tiny"


def test_foreign_things_in_the_folder_are_ignored(registry: Registry) -> None:
    """Files, hidden folders and names that are not ours do not show up."""
    add(registry, "tiny")
    (registry.folder / "notes.txt").write_text("x")
    for name in (".hidden", "with space", "a" * 129):
        (registry.folder / name).mkdir()
        (registry.folder / name / "model.json").write_text("{}")
    assert [entry.name for entry in registry.entries()] == ["tiny"]


@given(st.text(max_size=140))
def test_safe_names_are_single_plain_steps(name: str) -> None:
    """A safe name has no separator, no leading dot, and a bounded length."""
    if is_safe_name(name):
        assert 0 < len(name) <= 128
        assert name == Path(name).name
        assert not name.startswith(".")
        assert name.isascii()
        assert name.isprintable()


def test_a_folder_of_safetensors_is_found_by_its_path(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute and relative paths, with or without a slash at the end, name the same model."""
    folder = write_folder(tmp_path / "My Model")
    monkeypatch.chdir(folder)
    found = [registry.find(text) for text in (str(folder), f"{folder}/", "../My Model", "./")]
    assert {(spec.name, spec.format) for spec in found} == {("My Model", "mlx")}
    assert {Path(spec.location).resolve() for spec in found} == {folder}
    with pytest.raises(LoadFailed, match=r"no config\.json"):
        registry.find(str(tmp_path))


def add_folder(registry: Registry, name: str) -> Path:
    """Put a tiny model of several files into the registry, as `pull` leaves it."""
    folder = write_folder(registry.folder / name)
    files = tuple(WeightFile(path.name, path.stat().st_size, "") for path in sorted(folder.iterdir()))
    write_manifest(folder, Manifest(source="hf:o/r", files=files, spec=read_folder(folder).spec(name, origin="pull")))
    return folder


def test_a_model_in_a_folder_is_given_as_the_folder(registry: Registry) -> None:
    """It is found by name and by what it was pulled as, and every file's size is checked on each read."""
    folder = add_folder(registry, "tiny")
    spec = registry.find("tiny")
    assert (spec.format, spec.location, spec.quantization) == ("mlx", str(folder), "int4 g64")
    assert registry.find("o/r") == registry.find("hf:o/r") == spec
    (folder / "tokenizer.json").write_bytes(b"")
    with pytest.raises(LoadFailed, match=r"tokenizer\.json has 0 bytes"):
        registry.find("tiny")
    assert registry.remove("tiny") > spec.weight_bytes


def test_manifests_from_before_folders_are_still_read(registry: Registry) -> None:
    """What a later version added has defaults."""
    spec = add(registry, "tiny")
    manifest = registry.folder / "tiny" / "model.json"
    old = json.loads(manifest.read_text())
    for name in ("cache_window_bytes", "format"):
        del old["spec"][name]
    manifest.write_text(json.dumps(old))
    assert registry.find("tiny") == spec
