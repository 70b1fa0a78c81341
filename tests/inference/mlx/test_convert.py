"""One conversion in this process: what is measured, what is written, and what is refused."""

from __future__ import annotations

import math
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from gguf_models import write_gguf_model
from pensieve.config.settings import Settings
from pensieve.errors import DiskFull, LoadFailed
from pensieve.inference.conversion import Finished, Job, Progressed, Report, Warned
from pensieve.inference.mlx.convert import Conversion, check_perplexity, token_limit
from pensieve.inference.mlx.loader import LoadedModel, load
from pensieve.inference.mlx.shards import write_shards
from pensieve.inference.mlx.weight_form import Slot
from pensieve.models.folders import read_folder
from pensieve.models.progress import silent
from pensieve.models.spec import ModelSpec
from tiny_models import make_tiny_model


def convert(source: Path, folder: Path, **wanted: Any) -> tuple[Finished, list[Report]]:
    """Convert into the folder; what was said on the way."""
    folder.mkdir()
    said: list[Report] = []
    finished = Conversion(Job(source=str(source), name=source.name, folder=str(folder), **wanted), said.append).run()
    return finished, said


def loaded(folder: Path) -> LoadedModel:
    """The model in the folder."""
    return load(ModelSpec(name=folder.name, location=str(folder), format="mlx"), Settings())


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_oss", "gptj", "gpt_neox", "gemma3", "qwen3"])
def test_every_family_is_quantized_and_loads_again(family: str, tmp_path: Path) -> None:
    """Eight bits are within five percent of the floats; the files beside the weights come along."""
    source = make_tiny_model(tmp_path / "source", family, chat_template="{{ messages }}")
    finished, _ = convert(source, tmp_path / "out", bits="8", group_size=32)
    assert finished.perplexity_before is not None
    assert finished.perplexity_after == pytest.approx(finished.perplexity_before, rel=0.05)
    assert finished.bytes_after < finished.bytes_before * 0.6
    assert read_folder(tmp_path / "out").quantization.startswith("int8")
    assert read_folder(tmp_path / "out").chat_template == "{{ messages }}"
    assert loaded(tmp_path / "out").eos_ids == loaded(source).eos_ids


def test_a_quantized_source_is_kept_unpacked_or_quantized_again_with_a_warning(tmp_path: Path) -> None:
    """Kept means to the byte; floats hold the same numbers."""
    source = make_tiny_model(tmp_path / "source", "llama", bits=8)
    kept, _ = convert(source, tmp_path / "kept")
    assert kept.perplexity_after == kept.perplexity_before
    floats, said = convert(source, tmp_path / "floats", bits="none", dtype="float32")
    assert floats.perplexity_after == pytest.approx(floats.perplexity_before, rel=1e-4)
    assert not [report for report in said if isinstance(report, Warned)]
    _, said = convert(source, tmp_path / "again", bits="4", is_checked=False)
    assert [report.warning.split("(")[1][:4] for report in said if isinstance(report, Warned)] == ["int8"]


def test_a_gguf_file_says_when_its_codes_are_the_source_s_own(tmp_path: Path) -> None:
    """Then nothing can be lost; asked for other bits, both are measured, and nothing of the measuring stays."""
    path = write_gguf_model(tmp_path / "m.gguf", make_tiny_model(tmp_path / "source", "llama"), kind="Q8_0")
    kept, _ = convert(path, tmp_path / "kept")
    assert (kept.perplexity_before, kept.unmeasured) == (None, "the weights are the same numbers")
    four, _ = convert(path, tmp_path / "four", bits="4", group_size=32)
    assert four.perplexity_before == pytest.approx(kept.perplexity_after, rel=0.01)
    assert sorted(each.name for each in (tmp_path / "four").iterdir() if each.is_dir()) == []
    assert four.bits_after < kept.bits_after < 10


def test_progress_runs_from_stage_to_stage(tmp_path: Path) -> None:
    """Bytes never run backwards within one."""
    source = make_tiny_model(tmp_path / "source", "llama")
    _, said = convert(source, tmp_path / "out", bits="4")
    steps = [report for report in said if isinstance(report, Progressed)]
    assert list(dict.fromkeys(step.stage for step in steps)) == [
        "measuring the source",
        "converting",
        "measuring the result",
    ]
    written = [step.done_bytes for step in steps if step.stage == "converting"]
    assert written == sorted(written)
    assert steps[-1].done_bytes == steps[-1].total_bytes > 0


def test_a_broken_source_is_told_from_a_broken_result(tmp_path: Path) -> None:
    """Weights that are no numbers fail before anything is written."""
    source = make_tiny_model(tmp_path / "source", "llama")
    weights: dict[str, mx.array] = mx.load(str(source / "model.safetensors"))  # type: ignore[assignment]
    weights = {name: array + mx.zeros(array.shape) for name, array in weights.items()}
    weights["model.norm.weight"] = mx.full((64,), math.nan)
    mx.save_safetensors(str(source / "model.safetensors"), weights)
    with pytest.raises(LoadFailed, match="no finite numbers"):
        convert(source, tmp_path / "out", bits="4")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("before", "after"), [(20.0, 201.0), (None, 1001.0), (5000.0, 1001.0), (20.0, math.inf)])
def test_an_absurd_result_is_refused(before: float | None, after: float) -> None:
    """Ten times worse than its source or than guessing among 100 tokens, or no number."""
    check_perplexity(20.0, 150.0, 100, "m")
    with pytest.raises(LoadFailed, match="nothing was kept; try --bits 8"):
        check_perplexity(before, after, 100, "m")


def test_a_cpu_measures_what_it_can_in_half_a_minute() -> None:
    """Small models the whole text, large ones a little of it."""
    assert token_limit(1_000, 900) == 900
    assert token_limit(135_000_000, 900) < 300
    assert token_limit(10**12, 900) == 64


def test_shards_are_cut_before_they_grow_too_large(tmp_path: Path) -> None:
    """Every array arrives, whatever file it is in, and an index names it; a large one has a file of its own."""
    arrays = [mx.arange(count, dtype=mx.float32).astype(mx.bfloat16) for count in (10, 10, 100, 3)]
    slots = [Slot(f"a{number}", array.shape, array.dtype) for number, array in enumerate(arrays)]
    write_shards(tmp_path, slots, arrays, silent, shard_bytes=45)
    assert len(list(tmp_path.glob("model-0000?-of-00003.safetensors"))) == 3
    assert "model-00002-of-00003" in (tmp_path / "model.safetensors.index.json").read_text()
    found: dict[str, mx.array] = {}
    for path in tmp_path.glob("*.safetensors"):
        found |= mx.load(str(path))  # type: ignore[arg-type]
    assert all(mx.array_equal(found[slot.name], array) for slot, array in zip(slots, arrays, strict=True))


def test_a_full_disk_is_noticed_before_and_while_writing(tmp_path: Path) -> None:
    """Asked first; if somebody else fills it meanwhile, the sentence is the same."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        _fill_twice(make_tiny_model(tmp_path / "source", "llama"), disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill_twice(source: Path, disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    with pytest.raises(DiskFull, match="are needed"):
        convert(source, disk / "asked", is_checked=False)
    ballast.unlink()
    conversion = Conversion(Job(source=str(source), name="m", folder=str(disk), is_checked=False), lambda _: fill(disk))
    with pytest.raises(DiskFull, match="no room"):
        conversion.run()


def fill(disk: Path) -> None:
    """Leave no room on the disk."""
    with suppress(OSError), (disk / "ballast").open("ab", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass
