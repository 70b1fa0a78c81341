"""No server: a model inside your own program, in a worker process that ends with it."""

import asyncio
import sys
from contextlib import aclosing

from pensieve.config.sources import load
from pensieve.generation import GenerationRequest, TextDelta
from pensieve.inference.worker.host import WorkerBackend
from pensieve.messages import say
from pensieve.models.registry import Registry


async def main(question: str) -> None:
    """Load the model of your settings, and print its answer as it is made."""
    loaded = load()
    spec = Registry(loaded.folders.models).find(loaded.settings.model.name)
    backend = WorkerBackend(spec, loaded.settings)
    request = GenerationRequest(id="1", model=spec.name, messages=(say("user", question),), max_tokens=100)
    try:
        async with aclosing(backend.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    print(event.text, end="", flush=True)
        print()
    finally:
        await backend.aclose()


if __name__ == "__main__":  # the worker is a process of its own
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is the capital of France?"))
