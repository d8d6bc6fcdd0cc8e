"""Ids of what is recorded: UUIDs of version 7 (RFC 9562 §5.7), which begin with the time.

Fact: an index takes ids that grow at its end, and random ones all over: with a million interceptions in SQLite, storing more of them
with random ids takes two to three times as long.
"""

ENTROPY_BYTES = 10

# The digit of the variant, two bits of which are fixed, by the one of the entropy.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid7(milliseconds: int, entropy: bytes) -> str:
    """Return a UUID that sorts by its time.

    Args:
        milliseconds: Since the Unix epoch.
        entropy: `ENTROPY_BYTES` random bytes; six bits of them are not used.
    """
    time, random = f"{milliseconds:012x}", entropy.hex()
    return f"{time[:8]}-{time[8:]}-7{random[1:4]}-{_VARIANTS[random[4]]}{random[5:8]}-{random[8:]}"
