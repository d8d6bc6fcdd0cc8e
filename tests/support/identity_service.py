"""A Coder deployment's API and an identity provider's keys, over real TLS on loopback: what the proxy asks who is who.

Not the real thing: it knows the two questions of Coder's API that the proxy asks, and one key set.
"""

import asyncio
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, Self

import jwt
import trustme
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse, Response
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example.com"
AUDIENCE = "aiproxyd"


class IdentityService:
    """Users by session token, and a key set. A context manager; `start` returns when it listens."""

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "identity-ca.pem"
        self.port = 0
        self.users: dict[str, dict[str, Any]] = {}
        """By session token."""
        self.groups: dict[str, list[str]] | None = {}
        """By user id; None for a deployment without groups."""
        self.keys: list[dict[str, Any]] = []
        """Public keys, as they are published."""
        self.questions: list[str] = []
        """Paths that were asked for."""
        self.answers_with: int | bytes | None = None
        """Status, or body, of every answer, instead of what is true."""
        self.hangs = False
        self.hangs_for: set[str] = set()
        """Session tokens that are not answered while they are in here."""
        self._folder = folder
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port}"

    def add_user(self, token: str, name: str, *groups: str) -> str:
        """Let `token` be that of `name`, and return the user's id."""
        id_ = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self.users[token] = {
            "id": id_,
            "username": name,
            "name": name.title(),
            "email": f"{name}@example.com",
            "status": "active",
        }
        if self.groups is not None:
            self.groups[id_] = list(groups)
        return id_

    def start(self) -> None:
        """Listen, on the port of before when there was one."""
        authority = trustme.CA()
        self.ca_file.write_bytes(authority.cert_pem.bytes())
        leaf = authority.issue_cert("127.0.0.1")
        pem = self._folder / "identity-leaf.pem"
        pem.write_bytes(leaf.private_key_pem.bytes() + b"".join(part.bytes() for part in leaf.cert_chain_pems))
        config = uvicorn.Config(
            self._app(), host="127.0.0.1", port=self.port, ssl_certfile=str(pem), ssl_keyfile=str(pem), lifespan="off",
            log_config=None,  # its own would be this whole process's
        )  # fmt: skip
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(server)))
        self._thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None and self._thread is not None:
            self.hangs = False
            self.hangs_for = set()
            server, self._server = self._server, None
            server.should_exit = server.force_exit = True
            assert self._loop is not None
            # A server waits for its connections, and clients keep theirs.
            self._loop.call_soon_threadsafe(lambda: [one.transport.abort() for one in list(server.server_state.connections)])
            self._thread.join()

    async def _serve(self, server: uvicorn.Server) -> None:
        self._loop = asyncio.get_running_loop()
        await server.serve()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/api/v2/users/me")
        async def me(coder_session_token: Annotated[str, Header()] = "") -> Response:
            self.questions.append("/api/v2/users/me")
            while coder_session_token in self.hangs_for:
                await asyncio.sleep(0.01)
            if (other := await self._other()) is not None:
                return other
            user = self.users.get(coder_session_token)
            if user is None:
                return JSONResponse({"message": "You are signed out or your session has expired."}, 401)
            return JSONResponse(user)

        @app.get("/api/v2/groups")
        async def groups(has_member: str, coder_session_token: Annotated[str, Header()] = "") -> Response:
            self.questions.append("/api/v2/groups")
            if (other := await self._other()) is not None:
                return other
            if self.groups is None:
                return JSONResponse({"message": "Route not found."}, 404)
            assert coder_session_token in self.users
            return JSONResponse([{"name": name, "id": str(uuid.uuid4())} for name in self.groups[has_member]])

        @app.get("/keys")
        async def keys() -> Response:
            self.questions.append("/keys")
            return (await self._other()) or JSONResponse({"keys": self.keys})

        return app

    async def _other(self) -> Response | None:
        while self.hangs:
            await asyncio.sleep(0.05)
        if isinstance(self.answers_with, int):
            return JSONResponse({"message": "no"}, self.answers_with, {"location": "https://elsewhere.example.com/"})
        return Response(self.answers_with, 200) if self.answers_with is not None else None


class Signer:
    """A key pair of an identity provider, and the tokens it signs."""

    def __init__(self, key_id: str = "key-1", algorithm: str = "RS256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self._private: Any
        self.public: dict[str, Any]
        """As it is published."""
        if algorithm.startswith(("RS", "PS")):
            self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.public = json.loads(RSAAlgorithm.to_jwk(self._private.public_key()))
        elif algorithm.startswith("ES"):
            self._private = ec.generate_private_key(ec.SECP256R1())
            self.public = json.loads(ECAlgorithm.to_jwk(self._private.public_key()))
        else:
            self._private = ed25519.Ed25519PrivateKey.generate()
            self.public = json.loads(OKPAlgorithm.to_jwk(self._private.public_key()))
        self.public |= {"kid": key_id, "use": "sig", "alg": algorithm}

    def token(self, name: str | None = "carol", **claims: Any) -> str:
        """Return a good token of `name`, but for the `claims` that are given; None leaves one out."""
        own = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "0001",
            "preferred_username": name,
            "exp": time.time() + 600,
            "iat": time.time(),
        }
        payload = {claim: value for claim, value in (own | claims).items() if value is not None}
        return jwt.encode(payload, self._private, algorithm=self.algorithm, headers={"kid": self.key_id})
