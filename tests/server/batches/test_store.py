"""The file of batches: one result a request, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.errors import HistoryUnusable, InvalidRequest, NotFound
from pensieve.server.batches import store as stores
from pensieve.server.batches.store import KEPT_SECONDS, LIFETIME_SECONDS, BatchStore, Place
from pensieve.wire.anthropic.batches import Batch, Entry, Listing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BatchStore]:
    """A fresh file."""
    opened = BatchStore(tmp_path / "batches.db")
    yield opened
    opened.close()


def made(store: BatchStore, number: int = 3, *, model: str = "m", now: float = 0.0, owner: str = "me") -> Batch:
    """A batch of so many requests."""
    entries = [Entry(f"r{at}", model, b"{}") for at in range(number)]
    return store.create(owner, entries, now)


def answered(store: BatchStore, limit: int = 100, now: float = 1.0) -> int:
    """Answer what waits; gives how many that were."""
    taken = store.take({"m"}, (), limit)
    for waiting in taken:
        assert store.finish(waiting.place, "succeeded", b'{"type":"succeeded"}')
    store.settle(now)
    return len(taken)


def test_a_request_gets_one_result_and_keeps_it(store: BatchStore) -> None:
    """A second one changes nothing, and is told so."""
    batch = made(store, 1)
    (waiting,) = store.take({"m"}, (), 5)
    assert store.finish(waiting.place, "succeeded", b"1")
    assert not store.finish(waiting.place, "errored", b"2")
    assert store.settle(5.0) == 1
    assert store.get("me", batch.id).ended_seconds == 5.0
    assert store.results("me", batch.id, -1, 10) == ((0, "r0", b"1"),)


def test_batches_take_turns(store: BatchStore) -> None:
    """A small one does not wait behind a large one; each keeps its own order."""
    first, second = made(store, 4), made(store, 2)
    taken = store.take({"m"}, (), 5)
    names = [(waiting.uid, waiting.place.at) for waiting in taken]
    assert names == [(first.id, 0), (second.id, 0), (first.id, 1), (second.id, 1), (first.id, 2)]


def test_what_is_under_way_is_not_taken_twice(store: BatchStore) -> None:
    """Nor what asks for another model, nor what is not among those that may."""
    made(store, 3)
    made(store, 1, model="other")
    assert [waiting.place.at for waiting in store.take({"m"}, (), 1)] == [0]
    assert [waiting.place.at for waiting in store.take({"m"}, {Place(1, 0)}, 5)] == [1, 2]
    assert [waiting.place for waiting in store.take({"m"}, (), 5, only={Place(1, 2)})] == [Place(1, 2)]
    assert store.models() == ("m", "other")


def test_attempts_are_counted_but_not_those_that_made_way(store: BatchStore) -> None:
    """So that a request which kills the server is found out."""
    made(store, 1)
    for expected in (1, 2):
        (waiting,) = store.take({"m"}, (), 1)
        assert waiting.num_attempts == expected
    store.put_back(waiting.place)
    assert store.take({"m"}, (), 1)[0].num_attempts == 2


def test_a_batch_expires_with_what_it_has(store: BatchStore) -> None:
    """Results that came in time stay."""
    batch = made(store, 3)
    answered(store, 1)
    assert store.over(LIFETIME_SECONDS - 1) == frozenset()
    assert store.over(LIFETIME_SECONDS) == {1}
    store.settle(LIFETIME_SECONDS)
    assert store.get("me", batch.id).outcomes == {"succeeded": 1, "expired": 2}
    assert store.results("me", batch.id, 0, 10)[0] == (1, "r1", b'{"type":"expired"}')


def test_old_batches_are_forgotten(store: BatchStore) -> None:
    """29 days after they were made, once they have ended."""
    batch = made(store, 1)
    answered(store)
    store.settle(KEPT_SECONDS - 1)
    assert store.get("me", batch.id)
    store.settle(KEPT_SECONDS)
    with pytest.raises(NotFound):
        store.get("me", batch.id)


def test_a_cancelled_batch_gives_waiting_requests_their_end(store: BatchStore) -> None:
    """And takes no answer that comes too late."""
    batch = made(store, 2)
    (waiting,) = store.take({"m"}, (), 1)
    store.cancel("me", batch.id, 1.0)
    store.settle(2.0)
    assert not store.finish(waiting.place, "succeeded", b"late")
    assert store.get("me", batch.id).outcomes == {"canceled": 2}


def test_more_than_the_disk_should_hold_is_refused(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers, and what to do."""
    monkeypatch.setattr(stores, "MAX_STORED_BYTES", 5)
    made(store, 2)
    with pytest.raises(InvalidRequest, match="batches keep 4 bytes here, and 5 is the most: delete some"):
        made(store, 1)


def test_one_process_works_the_queue_off(tmp_path: Path, store: BatchStore) -> None:
    """Another one waits until it has ended."""
    other = BatchStore(tmp_path / "batches.db")
    assert (store.own(), store.own(), other.own()) == (True, True, False)
    store.close()
    assert other.own()
    other.close()


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    """And named."""
    path = tmp_path / "batches.db"
    path.write_bytes(b"not a database at all, but a note of somebody's" * 100)
    before = path.read_bytes()
    with pytest.raises(HistoryUnusable, match="the file of batches"):
        BatchStore(path)
    assert path.read_bytes() == before


class Life:
    """A file of batches through which anything may happen, and what was kept in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = BatchStore(path)
        self.now = 0.0
        self.taken: list[Place] = []
        self.kept: dict[Place, bytes] = {}

    def create(self) -> None:
        """Three requests more."""
        made(self.store, 3, now=self.now)

    def take(self) -> None:
        """Begin two."""
        self.taken += [waiting.place for waiting in self.store.take({"m"}, self.taken, 2)]

    def finish(self) -> None:
        """End the last one, if the file takes its result."""
        result = str(self.now).encode()
        if self.taken and self.store.finish(place := self.taken.pop(), "succeeded", result):
            assert place not in self.kept
            self.kept[place] = result

    def put_back(self) -> None:
        """One makes way."""
        if self.taken:
            self.store.put_back(self.taken.pop())

    def cancel(self) -> None:
        """The newest is not wanted any more."""
        for batch in self.store.list("me", Listing(limit=1))[0]:
            if batch.ended_seconds is None:
                self.store.cancel("me", batch.id, self.now)

    def die(self) -> None:
        """The program ends and starts again."""
        self.store.close()
        self.store, self.taken = BatchStore(self.path), []

    def settle(self) -> None:
        """Half a lifetime passes."""
        self.now += LIFETIME_SECONDS / 2
        self.store.settle(self.now)


STEPS = (Life.create, Life.take, Life.finish, Life.put_back, Life.cancel, Life.die, Life.settle)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=5, max_size=40))
def test_every_request_ends_with_exactly_one_result(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Callable[[Life], None]]
) -> None:
    """Whatever happens in whichever order, and however often the program dies."""
    life = Life(tmp_path_factory.mktemp("batches") / "batches.db")
    for step in steps:
        life.now += 1.0
        step(life)
    life.store.settle(life.now + LIFETIME_SECONDS)
    for number, batch in enumerate(reversed(life.store.list("me", Listing(limit=1000))[0]), 1):
        found = life.store.results("me", batch.id, -1, 10)
        assert ([place for place, _, _ in found], batch.num_done) == ([0, 1, 2], 3)
        assert all(life.kept.get(Place(number, at), result) == result for at, _, result in found)
    life.store.close()


def test_words_of_a_deleted_batch_are_on_the_disk_no_more(tmp_path: Path, store: BatchStore) -> None:
    """Neither in the file nor in the log beside it."""
    secret = b'"the words of a secret"'
    batch = store.create("me", [Entry("r", "m", secret)], 0.0)
    answered(store)
    assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
    store.delete("me", batch.id)
    assert not any(secret in file.read_bytes() for file in tmp_path.iterdir())
