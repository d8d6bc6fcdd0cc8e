"""Asks an identity service over HTTPS: bounded in time, size and number, and never through a proxy.

Not a judge of answers. Redirects are not followed: a credential goes to the host that was configured and to no other.
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi
import httpx

from aiproxyd.exceptions import ConfigError
from aiproxyd.identity.answer import SourceUnavailable

# A user is a few hundred bytes, a key set a few thousand.
MAX_ANSWER_BYTES = 1 << 20

# Connections to one service; questions beyond it wait for their turn, and beyond that they fail.
MAX_CONNECTIONS = 16
MAX_WAITING = 256


class Service:
    """One identity service."""

    def __init__(self, source: str, *, setting: str, ca_file: Path | None, timeout_seconds: float) -> None:
        """
        Args:
            source: For errors.
            setting: Name of the setting of `ca_file`, for errors.
            ca_file: PEM of further roots.
            timeout_seconds: For one question, from its beginning to the last byte of the answer.

        Raises:
            ConfigError: `ca_file` cannot be used.
        """
        self._source = source
        self._timeout_seconds = timeout_seconds
        trust = ssl.create_default_context(cafile=certifi.where())
        if ca_file is not None:
            try:
                trust.load_verify_locations(ca_file)
            except OSError as exc:
                raise ConfigError(f"{setting}: {ca_file} cannot be used: {exc.strerror or exc.args[-1]}") from exc
        self._client = httpx.AsyncClient(
            verify=trust,
            trust_env=False,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            headers={"accept": "application/json", "user-agent": "aiproxyd"},
        )
        self._asking = 0

    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, parameters: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of an answer, whatever the status.

        Raises:
            SourceUnavailable: There is no whole answer.
        """
        if self._client.is_closed:
            raise SourceUnavailable(self._source, "replaced", f"{url} is not asked any more under this configuration")
        if self._asking >= MAX_CONNECTIONS + MAX_WAITING:
            raise SourceUnavailable(self._source, "busy", f"too many questions to {url} are open")
        self._asking += 1
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream("GET", url, headers=headers, params=parameters) as answer,
            ):
                body = bytearray()
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise SourceUnavailable(self._source, "malformed", f"{url} answered more than {MAX_ANSWER_BYTES} bytes")
                return answer.status_code, bytes(body)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise SourceUnavailable(self._source, "timeout", f"{url} did not answer in {self._timeout_seconds:g} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as exc:
            raise SourceUnavailable(self._source, "unreachable", f"{url} cannot be asked: {exc or type(exc).__name__}") from exc
        finally:
            self._asking -= 1

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()
