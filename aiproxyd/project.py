"""In which project a tool works, as it tells its model: folder, repository and branch. Pure, and looks at nothing but the request.

Facts:
- Tools put their working directory into the system prompt or the first message, in a block of their own. The bodies are JSON, so line
  ends and quotes are escaped in them.
- The same words may stand in anything a user or a tool says. The first place counts, and only inside the tool's own block.
- Codex also sends its workspace with the remote's address in a header.

Strategy: one search for a marker over the raw body, without decoding it, then a regular expression on a small window.

Source:
    The tools' requests as observed in 2026-11; each has a row in the tests.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers
from aiproxyd.providers.decoding import decode

MAX_VALUE_CHARACTERS: Final = 512
"""A folder, repository or branch is cut to this; Linux allows paths of 4096, real ones are below 200."""

_BLOCK_BYTES: Final = 2048
"""How far a block is read from its marker; directory listings follow and are not needed."""

_MAX_PLACES: Final = 4
"""So many places of a marker are looked at."""

_TURN_METADATA: Final = "x-codex-turn-metadata"

# Up to the end of the line in JSON, of the string, or of the element.
_VALUE: Final = rb'((?:[^"\\<]|\\[^nr])+)'

_DIRECTORY_LINE: Final = re.compile(
    rb"(?:<env>|# Environment|<environment_context>|<system_information>)(?:[^<]{0,600})orking directory: " + _VALUE
)
_GIT_REPOSITORY: Final = re.compile(rb"\* Git repository: " + _VALUE)
_BRANCH: Final = re.compile(rb"Current branch: " + _VALUE)
_CWD: Final = re.compile(rb"<environment_context>(?:(?!</environment_context>).){0,400}?<cwd>" + _VALUE + rb"</cwd>", re.DOTALL)
_FOLDER: Final = re.compile(rb"folders?:\s*(?:\\r)?(?:\\n)+\s*- " + _VALUE)
_REPOSITORY_NAME: Final = re.compile(rb"Repository name: " + _VALUE + rb"\\n(?:Owner: " + _VALUE + rb")?")
_HERE: Final = re.compile(rb"working in the directory: " + _VALUE)


class Project(msgspec.Struct, frozen=True):
    """What a request says about where its tool works. Any field may be empty but `evidence`."""

    evidence: str
    """Where it says so: `environment_block`, `environment_context`, `workspace_info`, `directory_context`, `turn_metadata`."""
    directory: str = ""
    repository: str = ""
    """`host/owner/name`, or as much of it as the tool knows."""
    branch: str = ""

    @property
    def name(self) -> str:
        """The last part of the repository, else of the directory."""
        return re.split(r"[/\\]", (self.repository or self.directory).rstrip("/\\"))[-1]

    def as_metadata(self) -> dict[str, str]:
        """Return the fields that are known, by the keys of records."""
        fields = {
            "project": self.name,
            "project_directory": self.directory,
            "project_repository": self.repository,
            "project_branch": self.branch,
            "project_evidence": self.evidence,
        }
        return {key: value for key, value in fields.items() if value}


def find_project(client: str, headers: Headers, body: bytes) -> Project | None:
    """Return where the tool works that sent a request; None when the request does not say. Total.

    Args:
        client: Its name, as `clients` has it.
        headers: Of the request.
        body: Its whole body, decoded.
    """
    for find in _FINDERS.get(client, _USUAL):
        found = find(headers, body)
        if found is not None and (found.directory or found.repository):
            return found
    return None


def _environment_block(headers: Headers, body: bytes) -> Project | None:  # noqa: ARG001
    """Claude Code's, OpenCode's and Crush's `<env>`, Copilot CLI's `<environment_context>`."""
    at = -1
    for _ in range(_MAX_PLACES):
        at = body.find(b"orking directory: ", at + 1)
        if at < 0:
            return None
        block = body[max(0, at - 800) : at + _BLOCK_BYTES]
        found = _DIRECTORY_LINE.search(block)
        if found is not None:
            repository = _GIT_REPOSITORY.search(block)
            return Project(
                "environment_block",
                directory=_text(found[1]),
                repository=_text(repository[1]) if repository else "",
                branch=_git_status_branch(body),
            )
    return None


def _git_status_branch(body: bytes) -> str:
    at = body.find(b"gitStatus: ")
    found = _BRANCH.search(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    return _text(found[1]) if found else ""


def _environment_context(headers: Headers, body: bytes) -> Project | None:  # noqa: ARG001
    """Codex's first message."""
    at = body.find(b"<environment_context>")
    found = _CWD.match(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    return Project("environment_context", directory=_text(found[1])) if found else None


def _workspace_info(headers: Headers, body: bytes) -> Project | None:  # noqa: ARG001
    """Copilot's in VS Code."""
    at = body.find(b"I am working in a workspace with the following folder")
    found = _FOLDER.search(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    if found is None:
        return None
    at = body.find(b"Repository name: ")
    named = _REPOSITORY_NAME.match(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    branch = _BRANCH.search(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    repository = "/".join(_text(part) for part in (named[2], named[1]) if part) if named else ""
    return Project("workspace_info", _text(found[1]), repository, _text(branch[1]) if branch else "")


def _directory_context(headers: Headers, body: bytes) -> Project | None:  # noqa: ARG001
    """Gemini CLI's and its descendants' first message."""
    at = body.find(b"working in the directory: ")
    found = _HERE.match(body, at, at + _BLOCK_BYTES) if at >= 0 else None
    return Project("directory_context", directory=_text(found[1])) if found else None


class _Workspace(msgspec.Struct):
    associated_remote_urls: dict[str, str] | None = None


class _TurnMetadata(msgspec.Struct):
    workspaces: dict[str, _Workspace] | None = None


_METADATA: Final = msgspec.json.Decoder(_TurnMetadata)


def _turn_metadata(headers: Headers, body: bytes) -> Project | None:  # noqa: ARG001
    """Codex's header."""
    try:
        workspaces = decode(_METADATA, (headers.first(_TURN_METADATA) or "{}").encode()).workspaces
    except MalformedBody:
        return None
    for directory, workspace in (workspaces or {}).items():
        urls = workspace.associated_remote_urls or {}
        url = urls.get("origin") or next(iter(urls.values()), "")
        return Project("turn_metadata", directory[:MAX_VALUE_CHARACTERS], _repository_of(url))
    return None


_REMOTE: Final = re.compile(r"(?:[a-z+]+://)?(?:[^@/]*@)?([^/:]+)(?::\d+/|[:/])(.+?)(?:\.git)?/?\Z")


def _repository_of(url: str) -> str:
    """Return host and path of a remote's address. Never what stands before an `@`: it may be a password."""
    found = _REMOTE.match(url)
    return f"{found[1]}/{found[2]}"[:MAX_VALUE_CHARACTERS] if found and "@" not in found[2] else ""


def _text(raw: bytes) -> str:
    """Return what a piece of a JSON string says, trimmed and cut."""
    try:
        text = decode(_STRING, b'"' + raw + b'"')
    except MalformedBody:
        return ""
    return "".join(letter for letter in text.strip()[:MAX_VALUE_CHARACTERS] if letter.isprintable())


_STRING: Final = msgspec.json.Decoder(str)

_Finder = Callable[[Headers, bytes], Project | None]
_USUAL: Final[tuple[_Finder, ...]] = (_environment_block,)
_FINDERS: Final[dict[str, tuple[_Finder, ...]]] = {
    "Codex": (_turn_metadata, _environment_context),
    "GitHub Copilot (VS Code)": (_workspace_info, _environment_block),
    "Gemini CLI": (_directory_context,),
    "Qwen Code": (_directory_context,),
}
