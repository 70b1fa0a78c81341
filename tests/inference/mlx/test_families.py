"""Every family, through the engine that serves it: the same greedy tokens alone, in a batch, and from the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from pensieve.config.settings import GenerationSettings, MlxSettings, Settings
from pensieve.generation import GenerationRequest, Thinking, collect
from pensieve.inference.mlx.backend import MlxBackend
from pensieve.inference.mlx.sequence import Task
from pensieve.messages import Message, ThinkingPart, say
from pensieve.models.folders import read_folder
from pensieve.sampling.params import merge
from real_templates import real_template
from tiny_engines import GREEDY, Asked, greedy_alone
from tiny_models import FAMILIES

OURS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
"""Ours, in the shape of SmolLM's own, which no package carries."""

TEMPLATES = {
    "phi3": "phi-3",
    "phi3-128k": "phi-3",
    "gpt_oss": "gpt-oss",
    "llama": "llama-3.1",
    "qwen2": "qwen-2.5",
    "qwen3": "qwen-3",
    "gemma3": "gemma-3",
    "mistral": "mistral-1",
    "deepseek_v3": "deepseek-r1",
    "qwen3_next": "qwen-3-2507",
}
"""The real ones. GPT-J and GPT-NeoX have none, nor has mamba2: they get the plain format."""

SETTINGS = Settings(
    generation=GenerationSettings(temperature=0.0),
    mlx=MlxSettings(device="cpu", prefill_tokens=48, parallel=5, prefix_cache_mib=64),
)
QUESTION = say("user", "Tell me about the rivers of France, from the longest to the shortest, and where they end. " * 3)
NUM_TOKENS = 24


class Served(NamedTuple):
    """A family's model behind its backend, and bare."""

    family: str
    backend: MlxBackend
    model: Any

    def prompt(self, *messages: Message) -> list[int]:
        """The tokens that the backend makes of the messages."""
        return list(self.backend._renderer.render(GenerationRequest(id="t", model="m", messages=messages)))

    def ask(self, prompt: list[int]) -> Asked:
        """Submit a prompt to the backend's engine."""
        task = Task(
            id=f"test {id(prompt)}",
            prompt=prompt,
            sampling=merge(self.backend._sampling, GREEDY),
            max_tokens=NUM_TOKENS,
            reason_at_max="length",
            stop_tokens=frozenset(),
        )
        asked = Asked(self.backend._engine, task)
        self.backend._engine.submit(task, asked)
        return asked


ALWAYS_OPENED = frozenset({"deepseek_v3"})
"""Their templates open the thinking whatever is asked; what nobody wants is closed at once."""


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, folder_of: Callable[..., Path], model_of: Callable[..., Any]
) -> Iterator[Served]:
    """Each family in turn, with its real template where it has one."""
    family: str = request.param
    template = OURS if family == "smollm" else None
    if family in TEMPLATES:
        template = real_template(TEMPLATES[family])
    folder = folder_of(family, chat_template=template)
    backend = MlxBackend(read_folder(folder).spec(family), SETTINGS)
    yield Served(family, backend, model_of(family, chat_template=template))
    asyncio.run(backend.aclose())


def test_a_prompt_is_answered_the_same_alone_together_and_from_the_cache(served: Served) -> None:
    """In pieces of 48 tokens, beside prompts of other lengths, and twice from what is stored."""
    prompt = served.prompt(QUESTION)
    expected = greedy_alone(served.model, prompt, NUM_TOKENS)
    assert len(prompt) > 130
    first = served.ask(prompt)
    assert (first.tokens, first.cached_tokens) == (expected, 0)
    others = [served.prompt(say("user", "So? " * length)) for length in (1, 40, 7)]
    together = [served.ask(tokens) for tokens in (*others, prompt)]
    for asked in together:
        assert asked.tokens == greedy_alone(served.model, asked.task.prompt, NUM_TOKENS)
    again = served.ask(prompt)
    assert again.tokens == expected
    assert together[-1].cached_tokens == again.cached_tokens == (len(prompt) - 1) // 64 * 64


def test_a_conversation_goes_on_from_its_last_turn(served: Served) -> None:
    """The second turn's prompt begins as the first one's did: that part is not read again."""
    question = say("user", "Which is the longest? " * 9)
    served.ask(served.prompt(question)).end()
    prompt = served.prompt(question, say("assistant", "The Loire."), say("user", "And then?"))
    asked = served.ask(prompt)
    assert asked.tokens == greedy_alone(served.model, prompt, NUM_TOKENS)
    assert asked.cached_tokens >= 128


def test_an_answer_that_stepped_back_goes_on_where_it_was(served: Served) -> None:
    """What it had said is read like a prompt, in whatever place it was."""
    prompt = served.prompt(say("user", "Name the rivers. " * 8))
    expected = greedy_alone(served.model, prompt, NUM_TOKENS + 20)
    for num_said in (1, 9, 20):
        assert served.ask(prompt + expected[:num_said]).tokens == expected[num_said : num_said + NUM_TOKENS]


def test_the_door_gives_the_text_of_these_tokens(served: Served) -> None:
    """Through `generate`, with the counts; where the template opens thinking, it is asked for."""
    thinks = Thinking() if served.family in ALWAYS_OPENED else None
    request = GenerationRequest(id="r", model="m", messages=(QUESTION,), max_tokens=NUM_TOKENS, thinking=thinks)
    answer = asyncio.run(collect(served.backend.generate(request)))
    prompt = served.prompt(QUESTION)
    stream = served.backend._tokenizer.stream()
    text = "".join(map(stream.add, greedy_alone(served.model, prompt, NUM_TOKENS))) + stream.flush()
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == NUM_TOKENS
    assert answer.reason == "length"
    thinking = [part.text for part in answer.message.parts if isinstance(part, ThinkingPart)]
    assert "".join(thinking) + answer.message.text == text
    assert bool(thinking) == (served.family == "deepseek_v3")


def test_phi_3_128k_reads_beyond_its_original_window_as_in_one_step(model_of: Callable[[str], Any]) -> None:
    """64 positions are original: 300 in pieces, and token by token, score as 300 at once."""
    model = model_of("phi3-128k")
    tokens = [3 + 7 * place % 90 for place in range(300)]
    at_once = model(mx.array([tokens]))[0, -1]
    for sizes in ([100, 100, 100], [50, 200, 49, 1], [290, *[1] * 10]):
        caches, start = make_prompt_cache(model), 0
        for size in sizes:
            logits = model(mx.array([tokens[start : start + size]]), cache=caches)[0, -1]
            start += size
        assert mx.allclose(logits, at_once, atol=1e-3)
        assert mx.argmax(logits).item() == mx.argmax(at_once).item()
