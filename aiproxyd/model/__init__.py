"""Floor 0: the frozen vocabulary every other floor speaks. No I/O, no clock, no library but msgspec."""
