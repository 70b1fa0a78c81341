"""The house itself: what importing costs, and that its own checks can fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from blockbuster import BlockingError

import pensieve.messages

REPOSITORY = Path(__file__).parent.parent
ENGINES_AND_FRAMEWORKS = {"xllamacpp", "mlx", "llguidance", "mlx_lm", "starlette", "uvicorn", "rich", "huggingface_hub"}


def load_script(name: str) -> ModuleType:
    """A script of the repository as a module."""
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


budgets, cleanliness, requirements = map(load_script, ("budgets", "cleanliness", "requirements"))


def test_core_imports_no_engine_and_no_framework() -> None:
    """The shared values and the door cost nothing to import."""
    probe = "import sys, pensieve.generation, pensieve.inference.router; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert not ENGINES_AND_FRAMEWORKS & set(run.stdout.split())


async def test_blocking_the_event_loop_from_our_code_fails() -> None:
    """Code that stands in the package's folder may not sleep on a running loop."""
    place = Path(pensieve.messages.__file__).with_name("sleeper.py")
    sleeper = compile("nap()", str(place), "exec")
    with pytest.raises(BlockingError):
        exec(sleeper, {"nap": lambda: time.sleep(0.001)})


def test_pensieve_home_hides_the_developers_settings(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A PENSIEVE variable of the shell that runs the tests does not reach a test."""
    monkeypatch.setenv("PENSIEVE_SERVER_PORT", "1")
    home = request.getfixturevalue("pensieve_home")
    assert {name: value for name, value in os.environ.items() if name.startswith("PENSIEVE_")} == {
        "PENSIEVE_HOME": str(home)
    }


@pytest.mark.model
def test_starter_model_is_whole(starter_model: Path) -> None:
    """The file that model tests run on has the published size."""
    assert starter_model.stat().st_size == 98_362_432


def counted(source: str, path: str = "src/module.py") -> list[str]:
    """What the budget check says of one source file."""
    found: list[str] = budgets.offenders([budgets.count(path, source)], [])
    return found


def test_budget_names_a_function_that_is_too_long() -> None:
    """Sixty lines pass, sixty-one do not, and the method is named with its class."""
    lines = "\n        pass" * 59
    within, over = f"class A:\n    def b(self):{lines}", f"class A:\n    def b(self):{lines}\n        pass"
    assert not [line for line in counted(within) if "A.b" in line]
    assert "src/module.py:A.b: 61 lines, at most 60" in counted(over)


def test_budget_holds_the_ninth_decile() -> None:
    """One long function among nine short ones is fine; two among eight are too many."""
    short = "def f():\n    pass\n"
    long = "def g():" + "\n    pass" * 39 + "\n"
    assert counted(short * 19 + long) == []
    assert counted(short * 8 + long * 2) == ["src: one function in ten is longer than 39 lines, at most 35"]


def test_budget_names_a_file_that_is_too_long() -> None:
    """The four hundred and first line is one too many."""
    assert counted("a = 1\n" * 400) == []
    assert counted("a = 1\n" * 401) == ["src/module.py: 401 lines, at most 400"]


@pytest.mark.parametrize("kind", ["", " Exception", " BaseException as error", " (OSError, Exception)"])
def test_budget_names_a_broad_except(kind: str) -> None:
    """Catching everything is found however it is spelled."""
    source = f"def f():\n    try:\n        pass\n    except{kind}:\n        pass\n"
    assert counted(source) == ["src/module.py:f: catches every exception"]


@pytest.mark.parametrize("handler", ["except OSError:\n        pass", "except BaseException:\n        raise"])
def test_budget_lets_narrow_and_reraising_handlers_be(handler: str) -> None:
    """A named error, and cleaning up before passing everything on, are no broad excepts."""
    assert counted(f"def f():\n    try:\n        pass\n    {handler}\n") == []


def test_budget_allows_at_most_three_broad_excepts() -> None:
    """The list of places that may catch everything does not grow unseen, and names no place that is gone."""
    modules = budgets.count_tree(REPOSITORY, ("src",))
    assert len(budgets.BROAD_EXCEPT_PLACES) <= 3
    assert set(budgets.BROAD_EXCEPT_PLACES) <= {place for module in modules for place in module.broad_excepts}


@pytest.mark.parametrize(
    "line",
    [
        "key = 'sk-" + "ant-" + "x" * 20 + "'",
        "url = 'http://me:secret" + "@host/'",
        "path = '/ho" + "me/somebody/project'",
        "path = '/ro" + "ot/.config'",
        "see https://" + "index.somewhere.org/simple",
        "-----BEGIN RSA PRIVATE" + " KEY-----",
        "pip install --index" + "-url=x",
    ],
)
def test_cleanliness_names_what_must_not_be_published(line: str) -> None:
    """Keys, places on one machine and addresses are found, with file and line."""
    (offence,) = cleanliness.offences("file.txt", f"fine\n{line}\n")
    assert offence.startswith("file.txt:2: ")


@pytest.mark.parametrize("line", ["http://127.0.0.1:7777/v1", "curl http://localhost:7777", "~/home/x", "a/work/b"])
def test_cleanliness_leaves_ordinary_lines_alone(line: str) -> None:
    """Loopback addresses and paths inside the tree are no offence."""
    assert cleanliness.offences("file.txt", line) == []


def test_lock_covers_every_requirement() -> None:
    """Each direct requirement, of every extra and of the build, is pinned with a hash, and nothing has an address."""
    lock = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    wanted = requirements.requirements(pyproject, ["dev", "mlx-cpu", "mlx-cuda"])
    for requirement in (*wanted, "pip>", "setuptools>"):
        name = requirement.split(">")[0].split("[")[0]
        assert "--hash=sha256:" in requirements.locked(lock, name)
    assert "://" not in lock


@pytest.mark.model
@pytest.mark.usefixtures("starter_home")
def test_starter_home_holds_the_starter_model() -> None:
    """The home that tests are given looks to the program as if the model had been pulled there."""
    run = subprocess.run(
        [sys.executable, "-m", "pensieve", "models", "list", "--json"], check=True, capture_output=True
    )
    assert b"smollm2-135m" in run.stdout
