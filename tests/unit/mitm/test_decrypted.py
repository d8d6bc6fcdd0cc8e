from aiproxyd.mitm.decrypted import STATUS_OF_ABORT, AbortedBy


def test_every_abort_has_a_status_of_an_error() -> None:
    assert set(STATUS_OF_ABORT) == set(AbortedBy)
    assert all(400 <= status < 600 for status in STATUS_OF_ABORT.values())
