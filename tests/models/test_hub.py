"""Pulling from a hub, over real sockets, with connections that break."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_files import TINY_MODEL, TINY_TENSORS, Tensor, gguf_bytes
from hub_server import HubServer
from pensieve.errors import DiskFull, DownloadFailed, UsageError
from pensieve.models.download import locate, pull, pull_from
from pensieve.models.hub import Hub, HubModel
from pensieve.models.manifest import read_manifest
from pensieve.models.progress import silent
from pensieve.models.registry import Registry
from pensieve.models.staging import locked

NAME = "o/r/Tiny-Q4_1.gguf"
WHOLE = gguf_bytes(TINY_MODEL, [*TINY_TENSORS, Tensor("blk.0.weight", (100_000,), 0, 400_000)])
HALF = len(WHOLE) // 2


def source_at(hub: HubServer, *pauses_seconds: float) -> HubModel:
    """The tiny model of that hub, tried again after the pauses."""
    paths, names = ("Tiny-Q4_1.gguf",), ("tiny-q4_1.gguf",)
    return HubModel(name="tiny-q4_1", repo="o/r", paths=paths, file_names=names, hub=Hub(hub.url, pauses_seconds))


def partial_bytes(registry: Registry) -> list[int]:
    """Sizes of the unfinished files."""
    return [path.stat().st_size for path in registry.folder.glob(".partial/*/*.part")]


@pytest.mark.parametrize("text", [NAME, f"hf:{NAME}", "o/r", "o/r:Q4_1"])
def test_every_way_to_name_it_pulls_the_file(hub: HubServer, registry: Registry, text: str) -> None:
    """File, repository and quantization lead to the same model, byte for byte."""
    hub.files[NAME] = WHOLE
    spec = pull(text, registry)
    assert (spec.name, spec.origin, spec.context_tokens) == ("tiny-q4_1", "pull", 2048)
    assert Path(spec.location).read_bytes() == WHOLE
    assert read_manifest(registry.folder / spec.name).source == f"hf:{NAME}"
    assert registry.find("TINY-Q4_1") == spec


def test_progress_runs_from_download_to_check(hub: HubServer, registry: Registry) -> None:
    """Bytes grow to the total within each stage."""
    hub.files[NAME] = WHOLE
    seen: list[tuple[str, int, int]] = []
    pull(NAME, registry, lambda *step: seen.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["downloading", "checking"]
    assert all(total == len(WHOLE) for _, _, total in seen)
    assert [done for stage, done, _ in seen if stage == "downloading"][-1] == len(WHOLE)


def test_a_cut_connection_is_gone_on_from_at_once(hub: HubServer, registry: Registry) -> None:
    """The next try asks only for the bytes that are missing."""
    hub.files[NAME], hub.cuts = WHOLE, [HALF]
    spec = pull_from(source_at(hub, 0.0), registry, silent)
    assert hub.ranges() == ["", f"bytes={HALF}-"]
    assert Path(spec.location).read_bytes() == WHOLE


def test_an_interrupted_pull_is_gone_on_from_later(hub: HubServer, registry: Registry) -> None:
    """What arrived is kept, is no model, and the next pull asks for the rest."""
    hub.files[NAME], hub.cuts = WHOLE, [HALF]
    with pytest.raises(DownloadFailed, match="pull again: it goes on from here"):
        pull_from(source_at(hub), registry, silent)
    assert partial_bytes(registry) == [HALF]
    assert registry.entries() == ()
    pull(NAME, registry)
    assert hub.ranges()[-1] == f"bytes={HALF}-"
    assert partial_bytes(registry) == []


def test_a_server_without_ranges_starts_again(hub: HubServer, registry: Registry) -> None:
    """A whole answer to a range request replaces the part instead of following it."""
    hub.files[NAME], hub.cuts, hub.is_range_honoured = WHOLE, [HALF], False
    spec = pull_from(source_at(hub, 0.0), registry, silent)
    assert Path(spec.location).read_bytes() == WHOLE


def test_a_part_of_other_content_is_not_continued(hub: HubServer, registry: Registry) -> None:
    """When the repository changed between two tries, the old bytes are dropped."""
    hub.files[NAME], hub.cuts = WHOLE, [HALF]
    with pytest.raises(DownloadFailed):
        pull_from(source_at(hub), registry, silent)
    hub.files[NAME] = gguf_bytes()
    spec = pull(NAME, registry)
    assert hub.ranges()[-1] == ""
    assert Path(spec.location).read_bytes() == gguf_bytes()


def test_a_wrong_checksum_never_becomes_a_model(hub: HubServer, registry: Registry) -> None:
    """Bytes that do not match the repository's checksum are deleted."""
    hub.files[NAME], hub.etag = WHOLE, "0" * 64
    with pytest.raises(DownloadFailed, match="wrong checksum and was deleted"):
        pull(NAME, registry)
    assert registry.entries() == ()
    assert partial_bytes(registry) == []


def test_a_file_that_is_no_model_never_becomes_one(hub: HubServer, registry: Registry) -> None:
    """A right checksum does not make a broken file a model."""
    hub.files[NAME] = WHOLE[:-100]
    with pytest.raises(DownloadFailed, match="is no model: the file ends at"):
        pull(NAME, registry)
    assert registry.entries() == ()
    assert list(registry.folder.glob(".partial/*/*")) == []


def test_a_split_model_arrives_with_all_its_parts(hub: HubServer, registry: Registry) -> None:
    """Two files become one model that weighs both; only then is it listed."""
    hub.files["o/r/Big-00001-of-00002.gguf"] = gguf_bytes()
    hub.files["o/r/Big-00002-of-00002.gguf"] = gguf_bytes({}, TINY_TENSORS)
    spec = pull("o/r", registry)
    assert (spec.name, spec.weight_bytes) == ("big", 960)
    assert Path(spec.location).name == "big-00001-of-00002.gguf"
    assert sum(1 for _ in (registry.folder / "big").glob("*.gguf")) == 2


def test_a_missing_part_fails_before_anything_is_fetched(hub: HubServer, registry: Registry) -> None:
    """All parts are looked up first."""
    hub.files["o/r/Big-00001-of-00002.gguf"] = gguf_bytes()
    with pytest.raises(DownloadFailed, match=r"no file o/r/Big-00002-of-00002\.gguf"):
        pull("o/r", registry)
    assert hub.ranges() == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_named(hub: HubServer, registry: Registry, status: int) -> None:
    """The status is in the sentence, and nothing is left."""
    hub.files[NAME], hub.status = WHOLE, status
    with pytest.raises(DownloadFailed, match=f"HTTP status {status}"):
        pull_from(source_at(hub), registry, silent)
    assert list(registry.folder.glob(".partial/*/")) == []


def test_unknown_repositories_and_files_are_named(hub: HubServer, registry: Registry) -> None:
    """What the hub does not have is said with the next step."""
    with pytest.raises(DownloadFailed, match="no repository for o/nowhere: check the name"):
        pull("o/nowhere", registry)
    hub.files[NAME] = WHOLE
    with pytest.raises(DownloadFailed, match=r"no file o/r/other\.gguf"):
        pull("o/r/other.gguf", registry)


def test_a_hub_that_is_gone_says_so(hub: HubServer, registry: Registry) -> None:
    """A refused connection is an error about the network."""
    hub.server_close()
    with pytest.raises(DownloadFailed, match="check the network"):
        pull(NAME, registry)


def test_a_model_that_is_here_is_not_fetched_again(hub: HubServer, registry: Registry) -> None:
    """A second pull, also by its short name, changes nothing; force fetches."""
    hub.files[NAME] = WHOLE
    spec = pull(NAME, registry)
    assert pull(NAME, registry) == pull(spec.name, registry) == spec
    assert len(hub.ranges()) == 1
    hub.files[NAME] = gguf_bytes()
    assert pull(spec.name, registry, is_forced=True).weight_bytes == 480
    assert len(hub.ranges()) == 2


def test_another_models_name_is_not_taken_over(hub: HubServer, registry: Registry) -> None:
    """Two repositories with a file of one name: the second is refused unless forced."""
    hub.files[NAME] = hub.files["p/q/tiny-q4_1.gguf"] = WHOLE
    pull(NAME, registry)
    with pytest.raises(UsageError, match=r"is here already, from hf:o/r/Tiny"):
        pull("p/q", registry)
    pull("p/q", registry, is_forced=True)
    assert read_manifest(registry.folder / "tiny-q4_1").source == "hf:p/q/tiny-q4_1.gguf"


def test_a_second_pull_at_once_is_told(hub: HubServer, registry: Registry) -> None:
    """While one process writes a model, another is refused with the reason."""
    hub.files[NAME] = WHOLE

    def pull_again(*step: object) -> None:
        with pytest.raises(UsageError, match="being pulled, converted or removed by another process"):
            pull(NAME, registry)
        steps.append(step)

    steps: list[object] = []
    pull(NAME, registry, pull_again)
    assert steps


def test_a_model_that_is_here_waits_for_nobody(hub: HubServer, registry: Registry) -> None:
    """Two who ask for it at once are both told; whoever wants it anew is told that somebody is at it."""
    hub.files[NAME] = WHOLE
    spec = pull(NAME, registry)
    with locked(registry.folder, spec.name):
        assert pull(NAME, registry) == spec
        with pytest.raises(UsageError, match="another process"):
            pull(NAME, registry, is_forced=True)


def test_a_disk_too_small_is_known_before(hub: HubServer, tiny_disk: Path) -> None:
    """Needed and available bytes are facts of the error, and no byte is fetched."""
    hub.files[NAME] = WHOLE
    with pytest.raises(DiskFull) as full:
        pull(NAME, Registry(tiny_disk / "models"))
    assert full.value.needed_bytes == len(WHOLE) > full.value.available_bytes > 0
    assert hub.ranges() == []


def test_a_disk_that_fills_meanwhile_is_told(hub: HubServer, tiny_disk: Path) -> None:
    """Where the size was not told before, the full disk still ends in `DiskFull`, and in no model."""
    hub.files[NAME], hub.is_size_told = WHOLE, False
    registry = Registry(tiny_disk / "models")
    with pytest.raises(DiskFull, match="no room in"):
        pull(NAME, registry)
    assert registry.entries() == ()


def test_a_file_on_this_machine_is_not_pulled(registry: Registry, tmp_path: Path) -> None:
    """A path of a file that is here says how to use it."""
    file = tmp_path / "mine.gguf"
    file.write_bytes(WHOLE)
    with pytest.raises(UsageError, match="on this machine already"):
        locate(str(file), registry)
