"""One life of a worker process, as the parent sees it."""

from __future__ import annotations

import asyncio
import sys

from pensieve.inference.worker.process import UNTOLD, WorkerProcess, _Link
from pensieve.models.spec import ModelSpec

COMPLAINT = f"""
import sys, time
for words in ("out of luck\\n{UNTOLD.decode()}: said 'my sec", "ret'\\n", "more of my secret\\n"):
    sys.stderr.write(words)
    sys.stderr.flush()
    time.sleep(0.05)
"""


async def test_last_words_hold_no_words_of_an_answer() -> None:
    """llama.cpp prints an answer that left its grammar, in as many pieces as it likes."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", COMPLAINT, stderr=asyncio.subprocess.PIPE)
    worker = WorkerProcess(ModelSpec(name="m", location=""), process, _Link())
    await process.wait()
    await worker._listening
    assert worker.last_words == f"out of luck\n{UNTOLD.decode()}"
