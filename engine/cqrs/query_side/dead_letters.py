"""Deal with the commits that could not be taken in or reacted to, once their cause was mended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from engine.cqrs.query_side.projection import Projection
from engine.cqrs.query_side.read_model import DeadLetter, Progress, ReadStore, Step, Write
from engine.cqrs.query_side.subscription import Subscription
from engine.errors import StoreUnavailable


async def settle(
    projection: Projection,
    generation: int,
    subscription: Subscription,
    views: ReadStore,
    *,
    skip: bool,
) -> None:
    """Take in the dead letters of one partition, stream by stream, each as far as it goes.

    With `skip` the first letter of each stream is given up, not what follows. A projector that
    runs meanwhile finds the revision raised and looks at the letters again. Raises StoreUnavailable.
    """
    name, partition = projection.name, subscription.partition
    # Before the letters: they change only together with it, so what was read is still true when it
    # is, and nothing is taken in twice.
    progress = await views.progress(name, generation, partition)
    letters = await views.dead_letters(name, generation, partition)
    by_stream = sorted(letters, key=lambda each: (each.stream, each.position))
    for _, of_stream in groupby(by_stream, key=lambda each: each.stream):
        own = list(of_stream)
        writes: list[Write] = []
        done: list[int] = [own.pop(0).position] if skip else []
        left = own
        for number, letter in enumerate(own):
            try:
                (commit,) = await subscription.read(letter.position - 1, 1)
                writes += projection.project(subscription.decode(commit))
            except StoreUnavailable:
                raise
            except Exception as error:
                left = [_because(letter, error), *own[number + 1 :]]
                break
            done.append(letter.position)
        else:
            left = []
        progress = await _write(
            projection, generation, partition, views, progress, writes, done, left
        )


async def hand_back(
    name: str, generation: int, partition: int, views: ReadStore, *, skip: bool
) -> None:
    """Have whoever runs a process manager react to the dead letters of one partition again.

    With `skip` the first letter of each stream is given up if it is poison: one without a reason was
    not tried yet, and one that waits for another partition goes on by itself. Raises StoreUnavailable.
    """
    # Before the letters: they change only together with it.
    progress = await views.progress(name, generation, partition)
    letters = await views.dead_letters(name, generation, partition)
    if progress is None or not letters:
        return
    by_stream = sorted(letters, key=lambda each: (each.stream, each.position))
    firsts = [next(own) for _, own in groupby(by_stream, key=lambda each: each.stream)]
    settled = [each.position for each in firsts if skip and each.reason and not each.is_waiting]
    reached = Progress(progress.position, progress.revision + 1)
    step = Step(name, generation, partition, progress, reached, settled=settled)
    if not await views.advance(step):
        raise StoreUnavailable(f"{name} went on meanwhile; try again")


async def _write(
    projection: Projection,
    generation: int,
    partition: int,
    views: ReadStore,
    progress: Progress | None,
    writes: Sequence[Write],
    done: Sequence[int],
    left: Sequence[DeadLetter],
) -> Progress:
    if progress is None:
        raise StoreUnavailable(f"{projection.name} was rebuilt meanwhile; its letters are gone")
    reached = Progress(progress.position, progress.revision + 1)
    # The first that is left may have another reason now.
    settled = [*done, *(each.position for each in left[:1])]
    place = (projection.name, generation, partition, progress, reached)
    step = Step(*place, projection.tables, writes, left[:1], settled)
    if not await views.advance(step):
        raise StoreUnavailable(f"{projection.name} went on meanwhile; try again")
    return reached


def _because(letter: DeadLetter, error: Exception) -> DeadLetter:
    return DeadLetter(
        letter.partition,
        letter.position,
        letter.aggregate_type,
        letter.aggregate_id,
        repr(error),
    )
