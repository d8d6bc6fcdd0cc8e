import uuid

from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.ids import uuid7

times = st.integers(min_value=0, max_value=(1 << 48) - 1)
entropies = st.binary(min_size=10, max_size=10)


def test_the_example_of_the_standard() -> None:
    # RFC 9562, appendix A.6: 2022-02-22 14:22:22 -05:00.
    assert uuid7(0x017F22E279B0, bytes.fromhex("0cc318c4dc0c0c07398f")) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(times, entropies)
def test_it_is_a_uuid_of_its_time(milliseconds: int, entropy: bytes) -> None:
    text = uuid7(milliseconds, entropy)
    read = uuid.UUID(text)
    assert str(read) == text
    assert (read.version, read.variant) == (7, uuid.RFC_4122)
    assert read.int >> 80 == milliseconds


@given(times, times, entropies, entropies)
def test_ids_sort_by_time(one: int, other: int, first: bytes, second: bytes) -> None:
    if one != other:
        assert (uuid7(one, first) < uuid7(other, second)) == (one < other)


@given(times, st.integers(min_value=0, max_value=(1 << 80) - 1))
def test_every_bit_but_six_is_of_the_entropy(milliseconds: int, number: int) -> None:
    ids = {uuid7(milliseconds, (number ^ (1 << bit)).to_bytes(10)) for bit in range(80)}
    assert len(ids - {uuid7(milliseconds, number.to_bytes(10))}) == 74
