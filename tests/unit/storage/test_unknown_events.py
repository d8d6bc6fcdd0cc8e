"""What parsers do not know adds up, keeps its first sample, and is told newest first."""

from datetime import UTC, datetime

from aiproxyd.model.observation import UnknownEventsSeen
from aiproxyd.storage.store import Store


def seen(at: float, counts: dict[str, int], **samples: str) -> UnknownEventsSeen:
    return UnknownEventsSeen(at=at, provider="openai", api="openai.responses", counts=counts, samples=samples)


async def test_counts_add_up_within_and_across_batches_and_the_first_sample_stays(store: Store) -> None:
    await store.apply([("w", seen(2.0, {"a": 1})), ("w", seen(1.0, {"a": 2, "b": 1}, a="{}"))], {"s-1": 10})
    await store.apply([("w", seen(5.0, {"a": 4}, a="[]", b="1"))], {"s-1": 20})
    await store.apply([("w", seen(5.0, {"a": 4}))], {"s-1": 20})
    first, second = await store.unknown_events()
    assert (first["kind"], first["count"], first["sample"]) == ("a", 7, "{}")
    assert first["first_seen_at"] == datetime.fromtimestamp(1.0, UTC)
    assert first["last_seen_at"] == datetime.fromtimestamp(5.0, UTC)
    assert (second["kind"], second["count"], second["sample"]) == ("b", 1, None)
