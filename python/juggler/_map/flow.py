"""A map under way: pull, hand to the model, wait, hand out. See docs/internals/map.md."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter, thread_time_ns
from typing import TYPE_CHECKING, Any

from juggler import _works as works
from juggler._map import choosing, measuring, models, workers
from juggler._map.choosing import Choice
from juggler._map.judge import Judge
from juggler._map.part import Failure, Part, run
from juggler._map.source import AsyncReader, Source, ThreadReader, is_swift

if TYPE_CHECKING:
    from juggler._map.measuring import Evidence, Measuring
    from juggler._map.models import Model
    from juggler._map.options import Options
    from juggler._map.pool import Memory
    from juggler._map.workers import Workers
    from juggler._progress import Display

WAIT = object()
"""A step that asks to come back when something has arrived, or when `Flow.patience` is over."""
READY = object()
"""A step that has put results into `Flow.ready`: it asks to come back when they are handed out."""

INPUT = "juggler.map: the input"
"""The note of an error that the input raised."""
_LARGEST = 16_384
"""So many calls go together at most."""


class Inbox:
    """What other threads tell whoever drives the flow."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._first: list[Any] = []
        self.bell: Callable[[], object] | None = None

    def put(self, *what: Any) -> None:
        """Tell; from any thread."""
        self._queue.put(what)
        bell = self.bell
        if bell is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                bell()

    def take(self) -> list[Any]:
        """What has come, without waiting."""
        came, self._first = self._first, []
        queue = self._queue
        if not queue.empty():  # it is asked again and again, mostly in vain
            with contextlib.suppress(Empty):
                while True:
                    came.append(queue.get_nowait())
        return came

    def wait(self, seconds: float | None) -> None:
        """Wait until something has come, or the time is over; this thread."""
        if not self._first:
            with contextlib.suppress(Empty):
                self._first.append(self._queue.get(timeout=seconds))


class Flow:
    """All that a map has under way.

    Attributes:
        patience: how long a `WAIT` may last, in seconds; None is for ever.
        choice: what it runs on.
        ready: results to hand out next, the first one last. Whoever drives it pops them, as that is
            all that a result costs where calls are short and go together; `close` clears it.
    """

    def __init__(self, options: Options, resources: Workers, memory: Memory) -> None:
        self.options = options
        self.call = models.Call(options)
        self.patience: float | None = None
        self.choice: Choice | None = None
        self.closed = False
        self.inbox = Inbox()
        self.ready: list[Any] = []
        self.failed = self.retries = 0
        self.display: Display | None = None
        self.began = 0.0
        self._resources = resources
        self._memory = memory
        self._cores = workers.cores()
        self._is_async = False
        self._source: Source
        self._sized: Any = None
        self._model: Model
        self._used: list[Model] = []
        self._measuring: Measuring | None = None
        # The call that was measured, if it goes on, and what it is to tell about itself.
        self._evidence: Evidence | None = None
        self._watched: Part | None = None
        self._judge: Judge | None = None
        # Taken from the input and not yet handed out, in order; of these, those to hand out next.
        self._parts: dict[Part, None] = {}
        self._whole: deque[Part] = deque()
        self._held = 0
        # Results that were handed out before `ready` was filled, and how many were put there then.
        self._done = 0
        self._filled = 0
        self._running = 0
        self._width = 1
        self._together = False
        self._chunk = 1
        options.retried.append(self._count_retry)

    # ------------------------------------------------------------ begin and end

    def start(self, is_async: bool) -> None:
        """Begin, in the thread or task that will drive it."""
        self._is_async = is_async
        self.began = perf_counter()
        # Who reads it is to be the only one who refers to it.
        items, self.options.items = self.options.items, ()
        self._sized = items if hasattr(items, "__len__") else None
        self._source = self._read(items)
        self._source.announce = self.inbox.put
        works.enroll(self)

    def _read(self, items: Any) -> Source:
        if isinstance(items, Source):
            return items
        # Some are both, as another map is.
        if isinstance(items, AsyncIterable) and (self._is_async or not isinstance(items, Iterable)):
            if self._is_async:
                return AsyncReader(items, asyncio.get_running_loop().create_task, INPUT)
            return AsyncReader(items, self._resources.loop().start, INPUT)
        if is_swift(items) or (self.options.on == "serial" and not self.call.is_async):
            return Source(items)
        return ThreadReader(items, "juggler-map-input", INPUT)

    def end_intake(self) -> None:
        """Take no more in, and finish what was taken; from any thread."""
        self._source.end()

    def close(self, at_once: bool = False) -> None:
        """Let nothing more begin.

        Args:
            at_once: whether what has begun is let go of, too.
        """
        if self.closed:
            return
        self.closed = True
        self._note_handed_out()
        self.ready.clear()  # after `closed` is set: who fills it looks at that afterwards
        works.dismiss(self)
        self.inbox.put()  # for whoever drives it, if that is another thread
        self.call.end()
        self.options.retried.clear()  # which refers to this
        for part in list(self._parts):
            part.todo.clear()
            if part.future is not None:
                part.future.cancel()
        for model in self._used:
            model.close()
        self.inbox.put()
        if hasattr(self, "_source"):
            self._source.close()
        if self.choice is not None and self._judge is not None:
            self.choice.achieved = self._judge.overall(self.choice)
        if self.display is not None:
            self.show(last=True)
            self.display.close()
        if at_once:
            self._resources.close(wait=False, cancel=True, at_once=True)

    @property
    def taken(self) -> int:
        """How many items were taken from the input."""
        return self._source.pulled if hasattr(self, "_source") else 0

    @property
    def done(self) -> int:
        """How many results were handed out."""
        return self._done + self._filled - len(self.ready)

    def _note_handed_out(self) -> None:
        self._done, self._filled = self.done, 0

    @property
    def number(self) -> int | None:
        """The number of the item whose result was handed out last; None if nobody keeps count."""
        skipped = self.failed if self.options.errors == "skip" else 0
        return self.done + skipped - 1 if self.options.ordered else None

    async def ended(self) -> None:
        """Wait until the tasks of this loop have ended."""
        for model in self._used:
            if isinstance(model, models.Loop):
                await model.ended()

    # ------------------------------------------------------------ steps

    def steps(self) -> Iterator[Any]:
        """Results that are handed out one by one, or `READY`; and `WAIT` in between."""
        choice = self._settled()
        if choice is None:
            yield from self._measure()
            choice = self.choice
        else:
            self._use(choice)
        assert choice is not None
        if choice.model == "serial":
            yield from self._serially()
        else:
            yield from self._in_parallel()
        if self._source.error is not None:
            raise self._source.error

    def _in_parallel(self) -> Iterator[Any]:
        while True:
            self._collect()
            part = self._next()
            if part is not None and self._running >= 2 * self._width:
                yield from self._hand_out(part)
            elif self._take(self._chunk):
                pass
            elif part is not None:
                yield from self._hand_out(part)
            elif not self._parts and self._source.ended:
                return
            else:
                if self._judge is not None:
                    if self._running < self._width and not self._source.ended:
                        self._judge.pause()  # it is the input that takes its time
                    elif self._judge.waits():
                        self._reconsider()
                yield WAIT

    def _serially(self) -> Iterator[Any]:
        """The calls one by one, here."""
        for part in list(self._parts):  # what was measured, and is there
            while not part.whole:
                self._collect()
                if not part.whole:
                    yield WAIT
        while (first := self._next()) is not None:
            yield from self._hand_out(first)
        if self.options.on == "serial" and type(self._source) is Source:
            yield from self._strictly(self._source)
            return
        function, call = self.call.here(), self.call
        while True:
            items = self._source.pull(self._chunk)
            if items:
                self._held += len(items)
                part = Part(items, self._source.pulled - len(items))
                part.outcomes, took, part.failed = run(function, items, call.star, call.stop)
                part.todo.clear()
                self._adapt(len(items), took)
                if self._judge is not None:
                    self._judge.completed += len(items)
                    self._judge.spent += took
                    if self._judge.waits(serial=True):
                        self._reconsider()
                yield from self._hand_out(part)
                if self.choice is not None and self.choice.model != "serial":
                    yield from self._in_parallel()
                    return
            elif self._source.ended:
                return
            else:
                yield WAIT

    def _strictly(self, items: Iterable[Any]) -> Iterator[Any]:
        """Each item is pulled when its result is asked for, and called with at once."""
        function, star = self.call.here(), self.call.star
        items = iter(items)
        for number, item in enumerate(items if is_swift(items) else _noting(items)):
            if self._source.ended:
                return
            try:
                result = function(*item) if star else function(item)
            except Exception as error:
                self.failed += 1
                if self.options.errors == "raise":
                    noted(error, number)
                    raise
                if self.options.errors == "skip":
                    continue
                result = error
            self._done += 1
            yield result
            del result, item
        self._source.ended = True

    # ------------------------------------------------------------ one step's parts

    def _take(self, size: int) -> bool:
        """Pull a part and start it, if there is room; whether it did."""
        room = self._room() - self._held
        if room <= 0:
            return False
        if self._watched is not None and self._running >= (self.options.limit or models.THREADS):
            return False  # for it has a worker that is not the model's
        items = self._source.pull(min(size, room))
        if not items:
            return False
        if self._measuring is not None:
            self._measuring.send(items, self.call.star)
        if self.call.star:
            items = [tuple(item) for item in items]
        part = Part(items, self._source.pulled - len(items))
        self._parts[part] = None
        self._held += part.size
        self._running += 1
        self._advance(part)
        return True

    def _length(self) -> int | None:
        """How many items there are, if they tell; a list may grow."""
        try:
            return None if self._sized is None else len(self._sized)
        except TypeError:
            return None

    def _room(self) -> int:
        """How many items may be taken beyond the results that were handed out."""
        if self.options.buffer is not None:
            return self.options.buffer
        if self._measuring is not None:
            return _LARGEST
        return (4 if self.options.ordered else 2) * self._width * self._chunk

    def _advance(self, part: Part) -> None:
        """Start what comes next of a part, until it is whole."""
        while part.todo:
            following = part.todo.popleft()
            if isinstance(following, Failure):
                part.fail(following)
                continue
            try:
                future = self._model.submit(following)
            except Exception as error:
                if len(following) > 1:
                    part.todo.extendleft([item] for item in reversed(following))
                elif self._broken(error):
                    raise
                else:
                    part.fail(Failure(error))
                continue
            part.todo.appendleft(following)
            part.future = future
            future.add_done_callback(partial(self.inbox.put, part, self._model))
            return
        part.future = None
        part.whole = True
        if part is self._watched:
            self._watched = None
        self._running -= 1
        if not self.options.ordered:
            self._whole.append(part)

    def _broken(self, error: Exception) -> bool:
        """Whether an error of `submit` is not the item's."""
        import pickle

        return not isinstance(error, (pickle.PicklingError, TypeError, AttributeError, ValueError))

    def _collect(self) -> None:
        """Note what has arrived."""
        for came in self.inbox.take():
            if came:
                part, model, future = came
                if part.future is future:
                    self._arrived(part, model, future)

    def _arrived(self, part: Part, model: Model, future: Any) -> None:
        items: Any = part.todo.popleft()
        error = models.failure(future)
        took = 0
        if error is None:
            try:
                outcomes, took, failed = model.outcome(future)
            except Exception as problem:
                error = problem
        if error is None:
            if self._measuring is not None and any(isinstance(one, Coroutine) for one in outcomes):
                self._await(part, items, outcomes)
                return
            part.outcomes += outcomes
            part.failed |= failed
            if len(outcomes) < len(items):  # it stopped at a failure
                part.todo.clear()
            self._adapt(len(items), took)
            if self._measuring is not None:
                self._measuring.came(outcomes, took)
            if self._judge is not None:
                self._judge.completed += len(outcomes)
                self._judge.spent += took
                if part is self._watched:
                    self._judge.seconds = took / 1e9
                    self._weigh(outcomes)
        elif len(items) == 1:
            part.fail(Failure(error))
        else:
            made = getattr(error, "done", None)
            if isinstance(made, int):
                # A worker died: with it the results of so many calls, and then one call.
                part.todo.extendleft([items[made + 1 :], Failure(error), items[:made]])
                part.todo = deque(one for one in part.todo if one != [])
            else:
                part.todo.extendleft([item] for item in reversed(items))
        self._advance(part)

    def _await(self, part: Part, items: list[Any], outcomes: list[Any]) -> None:
        """What looked like a plain function made coroutines: have them made, and run, in a loop."""
        for one in outcomes:
            if isinstance(one, Coroutine):
                one.close()  # nothing of it has run
        self._measuring = None
        self.call.awaits()
        self._use(Choice("loop", self.options.limit or models.THREADS, "fn makes coroutines"))
        part.todo.extend([item] for item in items)
        self._advance(part)

    def _weigh(self, outcomes: list[Any]) -> None:
        """The call that was measured has ended: find out whether others could go to processes."""
        choice, evidence, self._evidence = self.choice, self._evidence, None
        if evidence is not None and choice is not None and choice.facts is not None:
            evidence.results += outcomes
            choice.facts = evidence.weigh(choice.facts, samples=1)

    def _adapt(self, calls: int, took: int) -> None:
        """Choose how many calls go together next."""
        if self.options.chunk is None and took and self._together:
            fit = int(calls * choosing.CHUNK * 1e9 / took)
            # Short calls only: the result of a long one is not to wait for another.
            fit = 1 if fit < 4 else min(fit, 8 * self._chunk)
            self._chunk = min(fit, self._most_together())

    def _most_together(self) -> int:
        """How many calls may go together at most."""
        if self.options.buffer is not None:
            return max(1, self.options.buffer // (2 * self._width))
        if (length := self._length()) is not None:
            return max(1, min(_LARGEST, length // (4 * self._width)))
        return _LARGEST

    def _next(self) -> Part | None:
        """The part whose results are next, if they are there."""
        if self._whole:
            return self._whole[0]
        if self.options.ordered and self._parts:
            part = next(iter(self._parts))
            if part.whole:
                return part
        return None

    def _hand_out(self, part: Part) -> Iterator[Any]:
        if not self.options.ordered and self._whole:
            self._whole.popleft()
        self._parts.pop(part, None)
        outcomes, errors = part.outcomes, self.options.errors
        outcomes.reverse()
        if len(outcomes) > 1 and not part.failed:
            self.ready += outcomes
            self._filled = len(outcomes)
            outcomes.clear()
            yield READY
            self._note_handed_out()
            self._held -= part.size
            return
        number = part.first
        # Nothing here may refer to a result that was handed out.
        while outcomes:
            if type(outcomes[-1]) is Failure:
                error = outcomes.pop().error
                self.failed += 1
                if errors == "raise" or not isinstance(error, Exception):
                    raise noted(error, number)
                if errors == "skip":
                    number += 1
                    self._held -= 1
                    continue
                outcomes.append(error)
                del error
            number += 1
            self._held -= 1
            self._done += 1
            yield outcomes.pop()

    # ------------------------------------------------------------ models

    def _settled(self) -> Choice | None:
        """The choice, where nothing has to be measured."""
        options, call = self.options, self.call
        on, limit = options.on, options.limit
        if not isinstance(on, str):
            width = limit or getattr(on, "_max_workers", None) or models.THREADS
            return Choice(type(on).__name__, width, "it was asked for")
        if on == "loop" and not call.is_async:
            raise TypeError(
                f"on='loop' needs a coroutine function, and {_name(call.function)} is none: "
                "use on='threads', or define it by `async def`"
            )
        if on == "serial" and call.is_async:
            return Choice("loop", 1, "it was asked for one after the other")
        if on in ("threads", "loop"):
            return Choice(on, limit or models.THREADS, "it was asked for")
        if on == "processes":
            return Choice(on, limit or self._cores, "it was asked for")
        if on == "serial":
            return Choice(on, 1, "it was asked for")
        if call.is_async:
            return Choice("loop", limit or models.THREADS, "fn is a coroutine function")
        if options.timeout is not None:
            why = f"timeout={options.timeout:g} needs calls that can be stopped"
            return Choice("processes", limit or self._cores, why)
        return self._memory.find(call.function, limit or models.THREADS)

    def _use(self, choice: Choice) -> None:
        """Run on this from now on."""
        self.choice = choice
        self._width = choice.workers
        remember(choice)
        if choice.model != "serial":
            self._model = self._make(choice)
            self._used.append(self._model)
        self._together = choice.model == "serial" or self._model.chunks
        self._chunk = 1
        if self._together:
            facts = choice.facts
            self._chunk = self.options.chunk or (choosing.chunk(facts) if facts else 1)
            self._chunk = min(self._chunk, self._most_together())
        if self.options.explain:
            name = _name(self.call.function)
            print(f"juggler.map({name}): {choice}", file=sys.stderr, flush=True)
        self.show()

    def _make(self, choice: Choice) -> Model:
        call, width, resources = self.call, choice.workers, self._resources
        on = self.options.on
        if not isinstance(on, str):
            if self.options.limit is None and call.policy is None and call.timeout is None:
                return models.Foreign(call, on, width)
            self._refuse_timeout(choice.model)
            return models.Away(choice.model, call, resources.threads(width), on, width)
        if choice.model == "loop":
            return models.Loop(call, None if self._is_async else resources.loop(), width)
        if choice.model == "threads":
            return models.Threads(call, resources.threads(width), width)
        processes = resources.processes(width)
        if call.policy is None and call.timeout is None:
            return models.Processes(call, processes, width)
        there = processes.options(timeout=call.timeout)
        return models.Away("processes", call, resources.threads(width), there, width)

    def _refuse_timeout(self, name: str) -> None:
        if self.call.timeout is not None:
            raise TypeError(
                f"timeout={self.call.timeout!r} can't stop calls in a {name}: use on='processes', "
                "or deadline="
            )

    # ------------------------------------------------------------ choosing

    def _measure(self) -> Iterator[Any]:
        """Make the first calls one after the other, until it is known what they are like."""
        measured = measuring.Measuring(self.call.function, self._ours)
        limit = self.options.limit or models.THREADS
        pool = self._resources.threads(limit)
        self._model = models.Watched(self.call, pool, measured.probe)
        self._measuring = measured
        self.patience = measuring.LOOK
        while not measured.enough():
            if self._running == 0:
                full = self._held >= self._room()
                if not self._take(measured.together) and (full or self._source.ended):
                    break
            yield WAIT
            self._collect()
            if self.call.is_async:
                self.patience = None
                return
        self.patience = None
        if not self._source.pulled:
            self._measuring = None
            self._use(Choice("serial", 1, "there were no items"))
            return
        facts = measured.facts(pickled=False)
        if choosing.needs_pickling(facts, self._cores, limit):
            facts = measured.facts(pickled=True)
        self._measuring = None
        self._watched = next((part for part in self._parts if not part.whole), None)
        # Whoever refers to the probe has it look on.
        self._model = models.Threads(self.call, pool, 1)
        left = None
        if (length := self._length()) is not None:
            left = max(0, length - facts.calls) * choosing.serially(facts)
        choice = choosing.choose(facts, self._cores, limit, left, not self._is_async)
        # What others take of the machine, they take of everything that could be chosen.
        self._judge = Judge(choosing.serially(facts) / max(0.1, 1 - facts.queued))
        if choice.model == "threads" and facts.pickle is None and facts.obstacle is None:
            # Something else may be tried if they disappoint.
            if self._watched is None:
                choice.facts = measured.evidence.weigh(facts, samples=1)
            else:
                self._evidence = measured.evidence
        self._use(choice)
        self._memory.keep(self.call.function, choice, limit)

    def _ours(self) -> int:
        """Nanoseconds that were computed for the map: this thread looks now and then."""
        return thread_time_ns() + self._source.processor_time()

    def _reconsider(self) -> None:
        """Try something else if what was chosen does not keep its promise."""
        choice, judge = self.choice, self._judge
        assert choice is not None and judge is not None and choice.facts is not None
        limit = self.options.limit or models.THREADS
        following = judge.verdict(choice, self._cores, limit)
        if judge.compared:
            self._memory.keep(self.call.function, following or choice, limit)
        if following is None:
            return
        old = self._model
        following.history = [*choice.history, judge.reason]
        self._use(following)
        if following.model == "serial" or old is self._model:
            return
        for part in list(self._parts):
            if part.future is not None and part.future.cancel():
                part.future = None
                self._advance(part)

    def _count_retry(self) -> None:
        self.retries += 1

    # ------------------------------------------------------------ progress

    def show(self, last: bool = False) -> None:
        """Tell how far it is, if anybody wants to know."""
        if self.display is None:
            return
        from juggler._progress import Progress

        self.display.show(
            Progress(
                name=_name(self.call.function),
                total=self._length(),
                done=self.done + (self.failed if self.options.errors != "return" else 0),
                failed=self.failed,
                retried=self.retries,
                under_way=self._held - self._filled + len(self.ready),
                seconds=perf_counter() - self.began,
                note="" if self.choice is None else str(self.choice),
                last=last,
            )
        )


def _noting(items: Iterable[Any]) -> Iterator[Any]:
    """The items; an error of theirs has the note that `ThreadReader` would have given it."""
    try:
        yield from items
    except Exception as error:
        error.add_note(INPUT)
        raise


def noted(error: BaseException, number: int) -> BaseException:
    """An error with a note which item it was."""
    error.add_note(f"juggler.map: item {number}")
    return error


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


_last: list[Choice] = []


def remember(choice: Choice) -> None:
    """This is the last choice now."""
    _last[:] = [choice]


def last_choice() -> Choice | None:
    """What the last map of this process runs on, and why.

    Returns:
        The choice, whose text is the reason with the numbers; None if there was no map yet. It
        is that of the map that began last, in whatever thread, and its ``achieved`` is there
        when that has ended.
    """
    return _last[0] if _last else None
