"""The engine: one thread that owns every array, and turns tasks into items, a step at a time.

A turn takes commands, admits, decodes one token of every running answer and reads one piece of one prompt. Whatever
fails in a step is that sequence's failure: the batch is built anew from tokens, and the others go on.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import mlx.core as mx

from pensieve.errors import BackendFailure, Overloaded, PensieveError
from pensieve.generation import FinishReason
from pensieve.inference import admission
from pensieve.inference.failure import converted
from pensieve.inference.mlx.prefix_store import PrefixStore
from pensieve.inference.mlx.reading import Pace, is_kept_at, next_stop
from pensieve.inference.mlx.runner import Runner, Spoken
from pensieve.inference.mlx.sampler import RowSampler
from pensieve.inference.mlx.scheduler import Scheduler
from pensieve.inference.mlx.sequence import Failed, Sequence, Sink, Task

MAX_FAILURES = 2
"""A sequence whose steps failed this often is at fault itself."""

WATCH_STEPS = 32
"""Memory is looked at once in so many steps of decoding: less than the room that admission keeps."""

IDLE_SECONDS = 0.02
"""Pause between two pieces of work that is done while nobody asks for anything."""


STOPPING = "the server is shutting down"


class Machine(NamedTuple):
    """What the engine needs to know of model and machine; made on the engine thread, with the arrays behind it."""

    runner: Runner
    store: PrefixStore
    shape: admission.CacheShape
    transient: admission.Transient
    vocabulary_size: int
    chunk_tokens: int
    available_bytes: Callable[[], int]
    """Memory that may still be allocated now."""
    reserve_bytes: int


class _Submit(NamedTuple):
    task: Task
    sink: Sink


class _Cancel(NamedTuple):
    sequence_id: str


class _Stop(NamedTuple):
    pass


class Engine:
    """Runs on a thread of its own from `start` to `stop`. `submit` and `cancel` may be called from any thread."""

    def __init__(self, *, max_rows: int, queue_limit: int) -> None:
        self._commands: queue.SimpleQueue[_Submit | _Cancel | _Stop] = queue.SimpleQueue()
        self._scheduler = Scheduler(max_rows=max_rows, queue_limit=queue_limit)
        self._sequences: dict[str, Sequence] = {}
        self._pace = Pace()
        self._num_steps = 0
        self._is_stopping = False
        self._has_stopped = False
        self._machine: Machine
        self._thread = ThreadPoolExecutor(1, "mlx")
        self._running_until_stopped: Future[None] | None = None

    def start(self, build: Callable[[], Machine]) -> None:
        """Start the thread and build the machine on it. Blocks until that is done; raises what `build` raises."""
        building = self._thread.submit(build)
        if building.exception() is not None:
            self._thread.shutdown()
        self._machine = building.result()
        if not self._machine.runner.is_batchable:
            self._scheduler.limit_rows(1)
        self._running_until_stopped = self._thread.submit(self._run)

    def submit(self, task: Task, sink: Sink) -> None:
        """Queue a task; its items come to `sink`, on the engine thread, the last one `Ended` or `Failed`."""
        self._commands.put(_Submit(task, sink))
        if self._has_stopped:
            self._refuse_rest()

    def cancel(self, sequence_id: str) -> None:
        """Its answer is complete, or nobody listens any more: end it. `Ended` comes, unless it has before."""
        self._commands.put(_Cancel(sequence_id))

    def stop(self) -> None:
        """End all work and wait for the thread; safe to call twice."""
        self._commands.put(_Stop())
        self._thread.shutdown()
        if self._running_until_stopped is not None:
            self._running_until_stopped.result()
        self._has_stopped = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """What came after the end hears so at once."""
        while not self._commands.empty():
            command = self._commands.get()
            if isinstance(command, _Submit):
                command.sink(Failed(BackendFailure(STOPPING)), True)

    def _run(self) -> None:
        while not self._is_stopping:
            self._attempt(self._turn, self._fail_all)
        for sequence in tuple(self._sequences.values()):
            self._fail(sequence, BackendFailure(STOPPING))
        self._machine.store.close()
        self._machine.runner.close()
        del self._machine  # an array that outlives its thread aborts the interpreter now and then

    def _turn(self) -> None:
        self._take_commands()
        self._admit()
        if self._scheduler.decoding:
            self._decode()
        if sequence_id := self._scheduler.next_read():
            self._do(self._read, self._sequences[sequence_id])

    # Commands.

    def _take_commands(self) -> None:
        """All that are there; sleeps while there is nothing to do."""
        while True:
            try:
                command = self._commands.get(block=self._scheduler.is_idle, timeout=self._idle_seconds())
            except queue.Empty:
                return
            match command:
                case _Submit(task, sink):
                    self._accept(Sequence(task, sink))
                case _Cancel(sequence_id):
                    if sequence := self._sequences.get(sequence_id):
                        self._abandon(sequence)
                case _Stop():
                    self._is_stopping = True
                    return

    def _idle_seconds(self) -> float | None:
        """How long to wait for a command: for ever, once there is no work left to do meanwhile."""
        if not self._scheduler.is_idle or self._is_stopping:
            return None
        is_work_left: list[bool] = []
        self._attempt(lambda: is_work_left.append(self._machine.store.idle()), converted)
        return IDLE_SECONDS if any(is_work_left) else None

    def _accept(self, sequence: Sequence) -> None:
        if self._scheduler.is_idle:
            mx.reset_peak_memory()
        try:
            self._scheduler.enqueue(sequence.id, sequence.tokens)
        except Overloaded as error:
            sequence.fail(error)
        else:
            self._sequences[sequence.id] = sequence

    # Admission.

    def _admit(self) -> None:
        while sequence_id := self._scheduler.candidate():
            sequence = self._sequences[sequence_id]
            match self._decide(sequence):
                case admission.Admit(chunk_tokens, needed_bytes):
                    sequence.chunk_tokens, sequence.needed_bytes = chunk_tokens, needed_bytes
                    self._do(self._begin, sequence)
                case admission.Evict(num_bytes):
                    if self._machine.store.release(num_bytes) == 0:
                        return
                    mx.clear_cache()
                case admission.Wait():
                    return
                case admission.Refuse() if sequence.outputs:
                    self._end(sequence, "context_full")  # it stepped back, and memory has become shorter since
                case admission.Refuse(reason):
                    self._fail(sequence, Overloaded(reason, 30.0))

    def _decide(self, sequence: Sequence) -> admission.Decision:
        machine, tokens = self._machine, sequence.tokens
        need = admission.Need(prompt_tokens=len(tokens), cached_tokens=machine.store.probe(tokens))
        budget = admission.Budget(
            available_bytes=machine.available_bytes(),
            reserve_bytes=machine.reserve_bytes,
            evictable_bytes=machine.store.num_bytes,
            committed_bytes=self._committed_bytes(),
        )
        return admission.decide(
            need,
            budget,
            shape=machine.shape,
            transient=machine.transient,
            chunk_tokens=machine.chunk_tokens,
            running=self._running(),
        )

    def _running(self) -> admission.Running:
        ids = (*self._scheduler.reading, *self._scheduler.decoding)
        lengths = [len(self._sequences[sequence_id].tokens) for sequence_id in ids]
        longest = max(lengths, default=0)
        return admission.Running(
            num_sequences=len(ids),
            longest_tokens=longest,
            num_bytes=self._machine.shape.batch_bytes(len(ids), longest),
        )

    def _committed_bytes(self) -> int:
        """What prompts being read were promised and have not taken."""
        reading = [self._sequences[sequence_id] for sequence_id in self._scheduler.reading]
        return sum(
            max(0, sequence.needed_bytes - sum(cache.nbytes for cache in sequence.caches)) for sequence in reading
        )

    def _begin(self, sequence: Sequence) -> None:
        sequence.caches, num_cached = self._machine.store.fetch(sequence.tokens)
        self._scheduler.admit(sequence.id, num_read=num_cached)
        sequence.begin(num_cached)

    # Reading prompts.

    def _read(self, sequence: Sequence) -> None:
        """The next piece of a prompt; all but its last token, which is the first step of decoding."""
        tokens, store = sequence.tokens, self._machine.store
        target = len(tokens) - 1
        stop = target if store.is_trimmable else next_stop(sequence.num_read, target)
        chunk = self._pace.chunk_tokens(sequence.chunk_tokens, is_anyone_waiting=bool(self._scheduler.decoding))
        num_read = sequence.num_read
        stop = min(stop, num_read + chunk)
        if stop > sequence.num_read:
            began = time.monotonic()
            self._machine.runner.read(sequence.caches, tokens[sequence.num_read : stop])
            seconds = time.monotonic() - began
            self._pace.note(stop - sequence.num_read, seconds)
            store.note_prefill(stop - sequence.num_read, seconds)
            sequence.read(stop - sequence.num_read)
            self._scheduler.advance(sequence.id, stop)
        if is_kept_at(stop, target, began_at=num_read, is_trimmable=store.is_trimmable):
            self._keep(tokens[:stop], sequence.caches)
        if stop == target:
            self._start_decoding(sequence)

    def _start_decoding(self, sequence: Sequence) -> None:
        machine, tokens = self._machine, sequence.tokens
        if machine.store.is_trimmable:
            self._keep(tokens[:-1], sequence.caches)
        if sequence.num_failures:
            machine.runner.check_alone(self._sampler(sequence), sequence.caches, tokens[-1])
        sampler = self._sampler(sequence)
        caches, sequence.caches = sequence.caches, []
        machine.runner.join(sequence.id, sampler, caches, tokens)
        self._scheduler.decode(sequence.id)
        mx.clear_cache()

    def _sampler(self, sequence: Sequence) -> RowSampler:
        return RowSampler(
            sequence.sampling,
            sequence.task.prompt,
            sequence.outputs,
            vocabulary_size=self._machine.vocabulary_size,
            logit_bias=sequence.task.logit_bias,
            num_logprobs=sequence.task.num_logprobs,
        )

    # Decoding.

    def _decode(self) -> None:
        self._num_steps += 1
        if self._num_steps % WATCH_STEPS == 0:
            self._make_room()
        if self._scheduler.decoding:
            self._attempt(self._speak, self._rebuild)

    def _speak(self) -> None:
        spoken = self._machine.runner.step()
        finished = [token.row_id for token in spoken if self._hear(token)]
        for sequence_id in finished:
            self._finish(self._sequences[sequence_id])

    def _hear(self, spoken: Spoken) -> bool:
        """Take a token in; True if the sequence has ended with it."""
        sequence = self._sequences[spoken.row_id]
        if not spoken.is_finite:
            self._fail(sequence, BackendFailure("the model gave no finite numbers for this request"))
            return False
        if spoken.token in sequence.task.stop_tokens:
            return True
        sequence.speak(spoken.token, spoken.probabilities)
        return sequence.is_full

    def _finish(self, sequence: Sequence) -> None:
        self._keep_row(sequence)
        self._end(sequence, sequence.task.reason_at_max if sequence.is_full else "stop")

    def _make_room(self) -> None:
        """Running answers grow: when memory is short, cached prompts go first, then who is read, then the youngest."""
        machine, running = self._machine, self._running()
        growth = machine.shape.growth_bytes(running.num_sequences, running.longest_tokens + WATCH_STEPS)
        short = growth + machine.reserve_bytes // 2 - machine.available_bytes()
        if short <= 0 or machine.store.release(short) >= short:
            return
        ids = (*self._scheduler.decoding, *self._scheduler.reading)
        youngest = self._sequences[ids[-1]]
        if len(ids) > 1:
            self._step_back(youngest)
        else:
            self._end(youngest, "context_full")
        mx.clear_cache()

    def _rebuild(self, error: Exception) -> None:
        """A step failed, and nobody knows through whom: each sequence is tried alone before it joins again."""
        self._machine.runner.clear()
        mx.clear_cache()
        for sequence_id in reversed(self._scheduler.decoding):
            sequence = self._sequences[sequence_id]
            sequence.num_failures += 1
            if sequence.num_failures > MAX_FAILURES:
                self._fail(sequence, converted(error))
            else:
                self._step_back(sequence)

    def _step_back(self, sequence: Sequence) -> None:
        self._machine.runner.leave([sequence.id])
        sequence.step_back()
        self._scheduler.step_back(sequence.id, sequence.tokens)

    # Endings.

    def _attempt(self, step: Callable[[], None], on_failure: Callable[[Exception], object]) -> None:
        """Do a step; whatever it fails with, this thread and the other sequences live on."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the engine loop, one of the three named places
            on_failure(error)

    def _do(self, step: Callable[[Sequence], None], sequence: Sequence) -> None:
        """Do a step of one sequence; its failure is that sequence's."""
        self._attempt(lambda: step(sequence), lambda error: self._fail(sequence, converted(error)))

    def _abandon(self, sequence: Sequence) -> None:
        """Nobody listens: keep what was read, for the same request sent again or the conversation's next turn."""
        if sequence.caches:
            self._keep_piece(sequence)
        elif sequence.id in self._scheduler.decoding:
            self._keep_row(sequence)
        self._end(sequence, "stop")

    def _keep_piece(self, sequence: Sequence) -> None:
        if self._machine.store.is_trimmable and sequence.num_read:
            self._keep(sequence.tokens[: sequence.num_read], sequence.caches)

    def _keep_row(self, sequence: Sequence) -> None:
        if self._machine.store.is_trimmable and sequence.id in self._machine.runner.row_ids:
            runner = self._machine.runner
            self._keep(runner.tokens(sequence.id), runner.caches(sequence.id))

    def _keep(self, tokens: list[int], caches: list[Any]) -> None:
        """Put them into the prefix cache; what goes wrong there costs nobody an answer."""
        self._attempt(lambda: self._machine.store.keep(tokens, caches), converted)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.end(reason, peak_memory_bytes=mx.get_peak_memory())
        self._leave(sequence)

    def _fail_all(self, error: Exception) -> None:
        """The turn itself failed, outside of any one's step: nobody is left waiting, and the thread lives on."""
        self._machine.runner.clear()
        for sequence in tuple(self._sequences.values()):
            self._fail(sequence, converted(error))

    def _fail(self, sequence: Sequence, error: PensieveError) -> None:
        sequence.fail(error)
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        self._machine.runner.leave([sequence.id])
        self._scheduler.leave(sequence.id)
        self._sequences.pop(sequence.id, None)
        sequence.caches = []
        if self._scheduler.is_idle:
            mx.clear_cache()
