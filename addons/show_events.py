"""Prints what AI providers answer, event by event, as this package understands it. Keeps nothing and refuses nothing.

    mitmdump -q -p 8888 -s addons/show_events.py

Configuration and CA as in `full.py`. Useful to see why a record looks as it does.
"""

from aiproxyd.mitm.mitmdump import show_events

addons = show_events()
