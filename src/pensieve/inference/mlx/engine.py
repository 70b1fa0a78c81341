"""The engine: one thread that owns every array, and turns tasks into items, a step at a time.

A turn takes commands, admits, decodes one token of every running answer and reads one piece of one prompt. Whatever
fails in a step is that sequence's failure: the batch is built anew from tokens, and the others go on.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import mlx.core as mx

from pensieve.errors import BackendFailure, Overloaded, PensieveError
from pensieve.generation import FinishReason
from pensieve.inference import admission
from pensieve.inference.backend import CacheFigures
from pensieve.inference.failure import converted
from pensieve.inference.mlx.chores import Chores
from pensieve.inference.mlx.commands import Cancel, Command, Relieve, Stop, Submit
from pensieve.inference.mlx.reading import GAP_SECONDS, Pace, is_kept_at, next_stop
from pensieve.inference.mlx.room import Machine
from pensieve.inference.mlx.runner import Spoken
from pensieve.inference.mlx.scheduler import Scheduler
from pensieve.inference.mlx.sequence import Failed, Sequence, Sink, Task

MAX_FAILURES = 2
"""A sequence whose steps failed this often is at fault itself."""

WATCH_STEPS = 32
"""Memory is looked at once in so many steps of decoding: less than the room that admission keeps."""

IDLE_SECONDS = 0.02
"""Pause between two pieces of work that is done while nobody asks for anything."""

FLUSH_SECONDS = 2.0
"""What the last answers left for the disk is written for so long at the end; see `process.STOP_SECONDS`."""

STOPPING = "the server is shutting down"


class Engine:
    """Runs on a thread of its own from `start` to `stop`. `submit` and `cancel` may be called from any thread."""

    def __init__(self, *, max_rows: int, queue_limit: int) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._scheduler = Scheduler(max_rows=max_rows, queue_limit=queue_limit)
        self._sequences: dict[str, Sequence] = {}
        self._pace = Pace()
        self._num_steps = 0
        self._chores = Chores()
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
        self._commands.put(Submit(task, sink))
        if self._has_stopped:
            self._refuse_rest()

    def cancel(self, sequence_id: str) -> None:
        """Its answer is complete, or nobody listens any more: end it. `Ended` comes, unless it has before."""
        self._commands.put(Cancel(sequence_id))

    def relieve(self, *, cache_share: float, is_frugal: bool) -> None:
        """Make do with less memory from now on, or with as much as before."""
        self._commands.put(Relieve(cache_share, is_frugal))

    @property
    def cached(self) -> CacheFigures:
        """What the cache of prompts holds; nothing once the engine has stopped. Numbers only: any thread may ask."""
        machine = getattr(self, "_machine", None)
        return CacheFigures() if machine is None else machine.store.figures

    @property
    def cache_budget_bytes(self) -> int:
        """What cached prompts may take."""
        return self._machine.store.budget_bytes

    def stop(self) -> None:
        """End all work and wait for the thread; safe to call twice."""
        self._commands.put(Stop())
        self._thread.shutdown()
        if self._running_until_stopped is not None:
            self._running_until_stopped.result()
        self._has_stopped = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """What came after the end hears so at once. May run on two threads at the same time."""
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._commands.get_nowait()
                if isinstance(command, Submit):
                    command.sink(Failed(BackendFailure(STOPPING)), True)

    def _run(self) -> None:
        while not self._is_stopping:
            self._attempt(self._turn, self._fail_all)
        for sequence in tuple(self._sequences.values()):
            self._fail(sequence, BackendFailure(STOPPING))
        self._machine.store.close(flush_seconds=FLUSH_SECONDS)
        self._machine.runner.close()
        del self._machine  # an array that outlives its thread aborts the interpreter now and then

    def _turn(self) -> None:
        self._take_commands()
        if self._is_stopping:
            return
        self._admit()
        if self._scheduler.decoding:
            self._decode()
        self._read_prompts()

    # Commands.

    def _take_commands(self) -> None:
        """All that are there; while there is nothing else to do, waits for one, and does chores meanwhile."""
        while True:
            try:
                # Without chores it sleeps for as long as nobody asks for anything.
                timeout = IDLE_SECONDS if self._chores.has_any else None
                command = self._commands.get(block=self._scheduler.is_idle, timeout=timeout)
            except queue.Empty:
                if not self._scheduler.is_idle:
                    return
                self._attempt(lambda: self._chores.do_one(self._machine.store), self._chores.give_up)
                continue
            match command:
                case Submit(task, sink):
                    self._accept(Sequence(task, sink))
                case Cancel(sequence_id):
                    if sequence := self._sequences.get(sequence_id):
                        self._abandon(sequence)
                case Relieve(cache_share, is_frugal):
                    self._relieve(cache_share, is_frugal=is_frugal)
                case Stop():
                    self._is_stopping = True
                    return

    def _relieve(self, cache_share: float, *, is_frugal: bool) -> None:
        """Caches shrink; while it is frugal, the younger half of the batch waits, and nobody joins who would share."""
        self._machine = self._machine.relieved(cache_share, is_frugal=is_frugal)
        self._scheduler.limit_running(1 if is_frugal else None)
        if is_frugal:
            for sequence_id in self._scheduler.younger_half():
                self._step_back(self._sequences[sequence_id])
        if cache_share < 1.0:
            self._chores.give_back()

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
        while not self._is_trying and (sequence_id := self._scheduler.candidate()):
            sequence = self._sequences[sequence_id]
            match self._decide(sequence):
                case admission.Admit(chunk_tokens, needed_bytes):
                    sequence.chunk_tokens, sequence.needed_bytes = chunk_tokens, needed_bytes
                    self._do(self._begin, sequence)
                case admission.Evict(num_bytes):
                    if self._machine.store.release(num_bytes, needed_for=sequence.tokens) == 0:
                        return
                    mx.clear_cache()
                case admission.Wait():
                    return
                case admission.Refuse() if sequence.outputs:
                    self._end(sequence, "context_full")  # it stepped back, and memory has become shorter since
                case admission.Refuse(reason):
                    self._fail(sequence, Overloaded(reason, 30.0))

    def _decide(self, sequence: Sequence) -> admission.Decision:
        return self._machine.decide(sequence, reading=self._named(self._scheduler.reading), decoding=self._speaking)

    @property
    def _is_trying(self) -> bool:
        """Somebody's last step failed: whoever joined now might be blamed for the next."""
        return any(each.num_failures for each in (*self._named(self._scheduler.reading), *self._speaking))

    @property
    def _speaking(self) -> list[Sequence]:
        return self._named(self._scheduler.decoding)

    def _named(self, ids: Iterable[str]) -> list[Sequence]:
        return [self._sequences[sequence_id] for sequence_id in ids]

    def _begin(self, sequence: Sequence) -> None:
        sequence.caches, num_cached = self._machine.store.fetch(sequence.tokens)
        self._scheduler.admit(sequence.id, num_read=num_cached)
        sequence.begin(num_cached)

    # Reading prompts.

    def _read_prompts(self) -> None:
        """Pieces of prompts, for as long as running answers may wait for their next token."""
        until = time.monotonic() + GAP_SECONDS
        while sequence_id := self._scheduler.next_read():
            self._do(self._read, self._sequences[sequence_id])
            self._admit()
            following = self._scheduler.next_read()
            if following is None or not self._scheduler.decoding:
                return
            if not self._pace.fits(self._sequences[following].num_unread, until - time.monotonic()):
                return

    def _read(self, sequence: Sequence) -> None:
        """The next piece of a prompt; with the last one the answer begins."""
        tokens, store, num_read = sequence.tokens, self._machine.store, sequence.num_read
        target = len(tokens)
        stop = target if store.is_trimmable else next_stop(num_read, target)
        most = min(sequence.chunk_tokens, self._machine.most_chunk_tokens)
        chunk = self._pace.chunk_tokens(most, is_anyone_waiting=bool(self._scheduler.decoding))
        stop = min(stop, num_read + chunk)
        began = time.monotonic()
        spoken = self._read_piece(sequence, tokens[num_read:stop], is_last=stop == target)
        seconds = time.monotonic() - began
        self._pace.note(stop - num_read, seconds)
        store.note_prefill(stop - num_read, seconds)
        sequence.read(stop - num_read)
        self._scheduler.advance(sequence.id, stop)
        is_due = stop == target or is_kept_at(stop, target, began_at=num_read, is_trimmable=store.is_trimmable)
        if is_due and (spoken is None or spoken.is_finite):
            self._keep(tokens[:stop], sequence.caches)
        if spoken is not None:
            self._begin_answer(sequence, spoken)

    def _read_piece(self, sequence: Sequence, piece: list[int], *, is_last: bool) -> Spoken | None:
        runner = self._machine.runner
        if not is_last:
            runner.read(sequence.caches, piece)
            return None
        sampler = sequence.new_sampler(self._machine.vocabulary_size)
        return runner.read_last(sequence.id, sampler, sequence.caches, piece)

    def _begin_answer(self, sequence: Sequence, first: Spoken) -> None:
        if self._hear(first):
            self._finish(sequence)
        elif sequence.id in self._sequences:
            caches, sequence.caches = sequence.caches, []
            self._machine.runner.join(sequence.id, sequence.sampler, caches, sequence.tokens)
            self._scheduler.decode(sequence.id)

    # Decoding.

    def _decode(self) -> None:
        self._num_steps += 1
        if self._num_steps % WATCH_STEPS == 0:
            self._make_room()
        if self._scheduler.decoding:
            self._attempt(self._speak, self._rebuild)

    def _speak(self) -> None:
        spoken = self._machine.runner.step()
        for token in spoken:
            self._sequences[token.row_id].num_failures = 0
        finished = [self._sequences[token.row_id] for token in spoken if self._hear(token)]
        for sequence in finished:
            self._keep_row(sequence)
        self._machine.runner.leave([sequence.id for sequence in finished])
        for sequence in finished:
            self._finish(sequence)

    def _hear(self, spoken: Spoken) -> bool:
        """Take a token in; True if the sequence has ended with it."""
        sequence = self._sequences[spoken.row_id]
        if not spoken.is_finite:
            self._fail(sequence, BackendFailure("the model gave no finite numbers for this request"))
            return False
        steering = sequence.task.steering
        if steering is not None and steering.failure is not None:
            self._fail(sequence, steering.failure)
            return False
        if spoken.token in sequence.task.stop_tokens:
            return True
        sequence.speak(spoken.token, spoken.probabilities)
        return sequence.is_full

    def _make_room(self) -> None:
        """Running answers grow: when memory is short, cached prompts go first, then who is read, then the youngest."""
        reading = self._named(self._scheduler.reading)
        short = self._machine.shortage_bytes([*reading, *self._speaking], num_steps=WATCH_STEPS)
        if short <= 0 or self._machine.store.release(short) >= short:
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

    def _finish(self, sequence: Sequence) -> None:
        """Its answer is complete: by the model's own word, or by its limit."""
        self._end(sequence, sequence.task.reason_at_max if sequence.is_full else "stop")

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
        self._chores.note_end()
