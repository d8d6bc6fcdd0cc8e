"""Decides who may connect where, and nothing else: ports, credentials, providers that are switched off, private addresses.

    mitmdump -p 8888 -s addons/enforce.py

Configuration as in `full.py`. What may pass, AI providers included, passes in mitmproxy's ignored tunnel: nothing is decrypted, no
CA is needed, nothing is recorded.
"""

from aiproxyd.mitm.mitmdump import enforce

addons = enforce()
