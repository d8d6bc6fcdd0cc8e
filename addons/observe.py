"""Records AI traffic and refuses nothing: no credentials, no policy; everybody is `anonymous`.

    mitmdump -p 8888 -s addons/observe.py

Configuration, CA and journal as in `full.py`. What no enabled provider claims passes in mitmproxy's ignored tunnel.
"""

from aiproxyd.mitm.mitmdump import observe

addons = observe()
