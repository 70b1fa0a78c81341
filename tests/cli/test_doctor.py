"""`pensieve doctor`: the real command on this machine, and its judgement on machines that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.checkup import (
    Cost,
    DeviceFacts,
    EngineFacts,
    MachineFacts,
    MemoryFacts,
    ModelFacts,
    Problem,
    Report,
    Room,
    engines_of,
    examine,
    fit_of,
    priced,
    room_of,
)
from pensieve.cli.doctor import page
from pensieve.cli.main import main
from pensieve.config.settings import MemorySettings, ModelSettings, Settings
from pensieve.devices.cuda import DeviceMemory
from pensieve.devices.memory import MemoryReading
from pensieve.devices.profile import MachineProfile, MlxDevice, MlxUnusable
from pensieve.inference.fitting import fit_of as listed_fit
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.prediction import estimated_cache_bytes
from pensieve.models.catalog import CATALOG
from pensieve.models.manifest import MANIFEST_NAME
from pensieve.models.spec import ModelSpec

GIB = 2**30
REPOSITORY = Path(__file__).parents[2]
PHI = ModelSpec(
    name="phi", location="/m", format="mlx", context_tokens=131_072, weight_bytes=2 * GIB, cache_bytes_per_token=393_216
)
MACHINE = MachineProfile(
    system="Linux 6",
    architecture="x86_64",
    chip="Chip",
    num_cores=8,
    memory=MemoryReading(20 * GIB, 32 * GIB),
    mlx=MlxDevice(kind="cpu"),
    engines={"xllamacpp": "1", "mlx": "2", "mlx-lm": "3"},
    python="3.11",
)


def command(*words: str, script: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """`pensieve doctor` or its script, in a process of its own."""
    program = [str(REPOSITORY / "scripts/validate_setup.py")] if script else ["-m", "pensieve", "doctor"]
    environ = os.environ | variables
    return subprocess.run(
        [sys.executable, *program, *words], env=environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.usefixtures("pensieve_home")
@pytest.mark.parametrize("script", [False, True])
def test_json_is_the_documented_report(script: bool) -> None:
    """Every field, nothing beside it, by the command and by the script; this machine can run something."""
    ended = command("--json", script=script)
    assert (ended.returncode, ended.stderr) == (0, "")
    report = msgspec.json.decode(ended.stdout, type=Report, strict=True)
    assert msgspec.json.format(msgspec.json.encode(report)).decode() == ended.stdout.strip()
    assert {model.name for model in report.models} == {entry.name for entry in CATALOG}
    assert report.is_usable
    assert report.memory.available_bytes


@pytest.mark.usefixtures("pensieve_home")
def test_the_page_is_readable_in_60_columns() -> None:
    """Without colours; the missing model of the settings and what to do about it stand at the end."""
    ended = command(COLUMNS="60", PENSIEVE_MODEL="starter")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 60
    assert ended.stdout.endswith(
        "\n! starter, the model of the settings, is not here\n  -> pensieve pull smollm2-135m\n"
    )


@pytest.mark.usefixtures("pensieve_home")
def test_settings_that_are_refused_are_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is still examined, and the status says that nothing can run."""
    monkeypatch.setenv("PENSIEVE_PORT", "70000")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "! the settings are refused: server.port (from PENSIEVE_PORT" in printed
    assert "phi-3-mini" in printed
    assert printed.endswith("Nothing can run here until that is put right.\n")


def test_nothing_is_made_by_looking(pensieve_home: Path) -> None:
    """A doctor does not leave folders behind."""
    examine()
    assert list(pensieve_home.iterdir()) == []


def test_damaged_models_and_wrong_warnings_come_with_a_next_step(pensieve_home: Path) -> None:
    """A manifest that cannot be read names the model to remove."""
    folder = pensieve_home / "data" / "models" / "broken"
    folder.mkdir(parents=True, mode=0o700)
    (folder / MANIFEST_NAME).write_text("{")
    problems = {found.problem.partition(":")[0]: found.next_step for found in examine().problems}
    assert problems["broken is damaged"] == "pensieve models rm broken, then pull it again"


@pytest.mark.parametrize(
    ("available_gib", "total_gib", "context", "fit"),
    [
        (20, 32, None, "fits"),
        (12, 32, None, "tight"),
        (8, 8, None, "tight"),
        (4, 4, None, "too big"),
        (8, 8, 4096, "fits"),
        (3, 16, 4096, "tight"),
    ],
)
def test_fits_tight_or_too_big(available_gib: int, total_gib: int, context: int | None, fit: str) -> None:
    """Now with its context; with less of it or nothing else running; or not even with 4,096 tokens."""
    settings = Settings(model=ModelSettings(context_tokens=context))
    model = priced(PHI, settings, Room(available_gib * GIB, total_gib * GIB))
    parts = (model.weight_bytes, model.cache_bytes, model.scratch_bytes, model.reserve_bytes)
    assert (model.fit, model.needed_bytes) == (fit, sum(parts))
    assert model.cache_bytes == 393_216 * (context or 32_768)


@pytest.mark.parametrize("available_gb", [3.0, 6.9, 12.0, 16.3, 16.4, 16.5, 16.6, 16.7, 16.8, 17.0, 40.0])
def test_the_doctor_and_the_list_of_models_say_the_same(available_gb: float) -> None:
    """By one sum and one reserve, to the last hundred megabytes."""
    reading = MemoryReading(round(available_gb * 10**9), 64 * 10**9)
    guard = MemoryGuard(MemorySettings(), lambda: reading)
    guard.look()
    model = priced(PHI, Settings(), Room(reading.available_bytes, reading.total_bytes))
    assert model.fit == listed_fit(PHI, Settings(), guard)
    assert model.reserve_bytes == 10**9


def test_what_cannot_be_judged_is_not_guessed() -> None:
    """A machine whose memory is unknown, and a model whose engine is not here."""
    assert priced(PHI, Settings(), Room(None, None)).fit == "unknown"
    assert priced(PHI, Settings(), Room(99 * GIB, 99 * GIB), has_engine=False).fit == "no engine"


@given(st.integers(0, 2**42), st.integers(0, 2**22), st.integers(0, 2**42), st.integers(1, 2**20))
def test_the_largest_context_fits_and_one_token_more_does_not(
    fixed: int, per_token: int, available: int, limit: int
) -> None:
    """Whatever a model costs."""
    cost = Cost(fixed, per_token)
    most = cost.most_tokens(available, limit)
    assert most == 0 or cost.at(most) <= available
    assert most == limit or per_token == 0 or cost.at(most + 1) > available
    assert fit_of(cost, limit, Room(available, available)) != "fits" or most == limit


CARD = DeviceMemory("Hopper", "GPU-0", 80 * GIB, 70 * GIB)
MAC = msgspec.structs.replace(MACHINE, mlx=MlxDevice(kind="metal", working_set_bytes=24 * GIB))


@pytest.mark.parametrize(
    ("engine", "profile", "cards", "room"),
    [
        ("mlx", MACHINE, (), Room(20 * GIB, 32 * GIB)),
        ("mlx", MAC, (), Room(20 * GIB, 24 * GIB)),
        ("llama.cpp", MAC, (), Room(20 * GIB, 24 * GIB)),
        ("mlx", msgspec.structs.replace(MAC, memory=MemoryReading(None)), (), Room(24 * GIB, 24 * GIB)),
        (
            "mlx",
            msgspec.structs.replace(MACHINE, mlx=MlxDevice(kind="cuda", uuid="GPU-0")),
            (DeviceMemory("Old", "GPU-1", GIB, GIB), CARD),
            Room(70 * GIB, 80 * GIB),
        ),
        (
            "llama.cpp",
            msgspec.structs.replace(MACHINE, mlx=MlxDevice(kind="cuda", uuid="GPU-0")),
            (CARD,),
            Room(20 * GIB, 32 * GIB),
        ),
    ],
)
def test_each_engine_has_its_memory(engine: Any, profile: MachineProfile, cards: Any, room: Room) -> None:
    """The machine's on a processor, Metal's share of it on a Mac, and the very card that MLX uses under CUDA."""
    assert room_of(engine, profile, cards) == room


def test_an_engine_that_is_missing_or_crashes_says_why() -> None:
    """llama.cpp by its package, MLX by what its own process came to."""
    profile = msgspec.structs.replace(MACHINE, mlx=MlxUnusable("signal 6 ended it"), engines={"mlx": "2"})
    assert [engine.problem for engine in engines_of(profile)] == ["it is not installed", "signal 6 ended it"]
    assert engines_of(msgspec.structs.replace(MACHINE, engines={"mlx": "2"}))[1].problem == "mlx-lm is not installed"


def test_estimates_are_near_the_models_they_were_made_for() -> None:
    """Phi-3-mini, GPT-J and GPT-NeoX, within a seventh of what their shapes say."""
    real = {3_821_079_552: 393_216, 6_053_381_344: 458_752, 20_554_567_680: 1_081_344}
    for parameters, bytes_per_token in real.items():
        assert abs(estimated_cache_bytes(parameters) / bytes_per_token - 1) < 1 / 7


@pytest.mark.usefixtures("pensieve_home")
def test_a_name_with_control_characters_cannot_reach_the_terminal() -> None:
    """Whatever a chip, a card or a model calls itself."""
    facts = MachineFacts(chip="\x1b[31mred", num_cores=1, architecture="x", system="s", python="3")
    assert "\x1b" not in "\n".join(page(msgspec.structs.replace(examine(), machine=facts), 60))


def test_the_page_in_the_docs_names_every_field() -> None:
    """JSON that programs read is documented whole."""
    documented = (REPOSITORY / "docs" / "doctor.md").read_text()
    for kind in (Report, MachineFacts, MemoryFacts, DeviceFacts, DeviceMemory, EngineFacts, ModelFacts, Problem):
        missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in documented]
        assert missing == [], kind.__name__


@pytest.mark.parametrize(
    ("system", "architecture", "cards", "step"),
    [
        ("Linux 6", "x86_64", (), "make setup EXTRAS=mlx-cpu"),
        ("Linux 6", "x86_64", (CARD,), "make setup EXTRAS=mlx-cuda"),
        ("Darwin 24", "arm64", (), "make setup"),
        ("Darwin 24", "x86_64", (), "not on this system: MLX is there for Macs with Apple silicon"),
    ],
)
def test_an_engine_that_is_not_here_is_named_with_what_would_add_it(
    system: str, architecture: str, cards: Any, step: str
) -> None:
    """Also where nothing is wrong without it; the one that is here has no next step."""
    without = msgspec.structs.replace(
        MACHINE,
        system=system,
        architecture=architecture,
        mlx=MlxUnusable("it is not installed"),
        engines={"xllamacpp": "1"},
    )
    llama, mlx = engines_of(without, cards)
    assert (llama.version, llama.problem, llama.next_step) == ("1", "", "")
    assert (mlx.problem, mlx.next_step[: len(step)]) == ("it is not installed", step)
    report = msgspec.structs.replace(examine(), engines=(llama, mlx))
    assert f"it is not installed\n           to add it: {step}" in "\n".join(page(report, 100))
