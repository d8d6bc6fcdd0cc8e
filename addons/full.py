"""Everything the daemon does to AI traffic, in one mitmdump process: verdicts, credentials, decryption, records.

    mitmdump -p 8888 -s addons/full.py

Configuration as for the daemon: the file that AIPROXYD_CONFIG names, AIPROXYD_… variables, defaults. Credentials are those of
`auth.users`; AIPROXYD_AUTH__MODE=off asks nobody. The CA is the daemon's (`aiproxyd ca show`), and so is the journal in `data_dir`.

A TUNNEL verdict becomes mitmproxy's own ignored tunnel: its bytes are neither decrypted nor shown to any hook, but they pass
mitmproxy's layers, and a client that closes its half loses the reply. The daemon's tunnel does better in both.
"""

from aiproxyd.mitm.mitmdump import full

addons = full()
