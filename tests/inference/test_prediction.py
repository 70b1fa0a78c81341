"""What a model takes, and what is said where that is too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.config.settings import LlamaCppSettings, MemorySettings, ModelSettings, Settings
from pensieve.devices.memory import GIGABYTE, MemoryReading
from pensieve.errors import LoadFailed, Overloaded
from pensieve.inference.fitting import fit_of, why_not
from pensieve.inference.guard import MemoryGuard
from pensieve.inference.llamacpp import sizing
from pensieve.inference.prediction import Fits, Prediction, TooBig, judge, predict
from pensieve.models.spec import ModelSpec

MODEL = ModelSpec(
    name="big",
    location="/m/big.gguf",
    context_tokens=32_768,
    weight_bytes=4 * GIGABYTE,
    cache_bytes_per_token=100_000,
    parameters=7 * 10**9,
)
FIXED_BYTES = predict(MODEL).fixed_bytes
ON_HOST = Settings(llamacpp=LlamaCppSettings(gpu_layers=0))


def guard(available_gb: float, total_gb: float = 64.0) -> MemoryGuard:
    """One that has looked at a machine with so much."""
    made = MemoryGuard(
        MemorySettings(), lambda: MemoryReading(round(available_gb * GIGABYTE), round(total_gb * GIGABYTE))
    )
    made.look()
    return made


def test_a_context_that_nobody_fixed_is_cut_to_what_fits() -> None:
    """In whole steps, with the reason; one that was fixed is refused with what would fit."""
    spare_bytes = FIXED_BYTES + 10_000 * MODEL.cache_bytes_per_token
    cut = judge(predict(MODEL), spare_bytes, wanted_tokens=32_768, is_fixed=False)
    assert cut == Fits(9984, "context 9984 of 32768 tokens: more does not fit in memory")
    fixed = judge(predict(MODEL), spare_bytes, wanted_tokens=32_768, is_fixed=True)
    assert isinstance(fixed, TooBig)
    assert fixed.most_tokens == 9984


@given(st.integers(0, 20 * GIGABYTE), st.integers(256, 100_000), st.booleans())
def test_what_fits_by_the_verdict_fits_by_the_sum(spare_bytes: int, wanted_tokens: int, is_fixed: bool) -> None:
    """And never with more than was wanted."""
    verdict = judge(predict(MODEL), spare_bytes, wanted_tokens=wanted_tokens, is_fixed=is_fixed)
    if isinstance(verdict, Fits):
        assert predict(MODEL).at(verdict.context_tokens) <= spare_bytes
        assert verdict.context_tokens <= wanted_tokens
    else:
        assert predict(MODEL).at(wanted_tokens) > spare_bytes


def test_a_model_that_never_fits_is_refused_with_numbers_and_what_would_fit() -> None:
    """Before anything is loaded; once for good."""
    problem = why_not(MODEL, ON_HOST, guard(0.9, 1.0))
    assert isinstance(problem, LoadFailed)
    assert "it needs 4.76 GB of memory (weights 4.00 GB, cache for 4,096 tokens 0.41 GB, work 0.35 GB)" in str(problem)
    assert "0.84 GB can be had: take smollm2-135m, which fits" in str(problem)
    assert not problem.retryable


def test_a_model_that_would_fit_with_less_running_can_be_asked_for_again() -> None:
    """The same request may succeed in a while."""
    problem = why_not(MODEL, ON_HOST, guard(3.0))
    assert isinstance(problem, Overloaded)
    assert "cannot be loaded now" in str(problem)
    assert why_not(MODEL, ON_HOST, guard(6.0)) is None


def test_a_context_that_was_fixed_too_long_is_told_what_would_do() -> None:
    """By the name of the setting."""
    settings = Settings(llamacpp=LlamaCppSettings(gpu_layers=0), model=ModelSettings(context_tokens=32_768))
    problem = why_not(MODEL, settings, guard(6.5, 7.0))
    assert isinstance(problem, LoadFailed)
    assert "set model.context_tokens to 16896 at most" in str(problem)


@pytest.mark.parametrize(
    ("available_gb", "total_gb", "fit"),
    [(20.0, 64.0, "fits"), (6.5, 64.0, "tight"), (3.0, 64.0, "tight"), (0.9, 1.0, "too big")],
)
def test_the_list_of_models_says_it_in_a_word(available_gb: float, total_gb: float, fit: str) -> None:
    """Tight: with less context, or with other programs ended."""
    assert fit_of(MODEL, ON_HOST, guard(available_gb, total_gb)) == fit


def test_what_cannot_be_known_is_not_guessed() -> None:
    """A header that says no size, a machine that cannot be read: nothing is refused."""
    blind = MemoryGuard(MemorySettings(), lambda: MemoryReading(None))
    nameless = ModelSpec(name="m", location="m.gguf")
    assert (why_not(MODEL, ON_HOST, blind), fit_of(MODEL, ON_HOST, blind)) == (None, "unknown")
    assert (why_not(nameless, ON_HOST, guard(0.2)), fit_of(nameless, ON_HOST, guard(0.2))) == (None, "unknown")


def test_llama_cpp_cuts_the_context_it_loads_and_says_why() -> None:
    """As judged; what the user fixed stands."""
    spare_bytes = FIXED_BYTES + 10_000 * MODEL.cache_bytes_per_token
    sizes = sizing.choose(MODEL, Settings(), available_bytes=0, spare_bytes=spare_bytes)
    assert (sizes.context_tokens, sizes.pool_tokens) == (9984, 9984)
    assert sizes.problem.startswith("context 9984 of 32768 tokens")
    fixed = Settings(model=ModelSettings(context_tokens=20_000))
    assert sizing.choose(MODEL, fixed, available_bytes=0, spare_bytes=spare_bytes).context_tokens == 20_000


def test_a_model_without_growing_cache_takes_any_context() -> None:
    """Recurrent ones."""
    flat = Prediction(weight_bytes=10, window_bytes=5, bytes_per_token=0, scratch_bytes=1, process_bytes=1)
    assert judge(flat, 17, wanted_tokens=10**6, is_fixed=False) == Fits(10**6)
    assert isinstance(judge(flat, 16, wanted_tokens=10**6, is_fixed=False), TooBig)
