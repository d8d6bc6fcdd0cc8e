"""Where a tool works: one row for each way to say it, and nothing from what merely talks about it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.head import Headers
from aiproxyd.project import MAX_VALUE_CHARACTERS, Project, find_project

CLAUDE_ENV = """You are Claude Code.
<env>
Working directory: /srv/ann/code/bicycle
Is directory a git repo: Yes
Platform: linux
</env>
gitStatus: This is the git status at the start of the conversation.
Current branch: feature/bell

Main branch (you will usually use this for PRs): main"""

CLAUDE_ENVIRONMENT = """# Environment
You have been invoked in the following environment:
 - Primary working directory: /srv/ann/code/bicycle
  - Is a git repository: true
 - Platform: linux"""

OPENCODE = """<env>
  Working directory: /srv/shop
  Workspace root folder: /
  Is directory a git repo: yes
</env>"""

COPILOT_CLI = """<environment_context>
You are working in the following environment. You do not need to make additional tool calls to verify this.
* Current working directory: C:\\git\\shop
* Git repository root: C:\\git\\shop
* Git repository: ann/shop
* Operating System: Windows_NT
</environment_context>"""

CODEX = """<environment_context>
  <cwd>/srv/ann/Üben "mit" Radeln</cwd>
  <shell>bash</shell>
</environment_context>"""

VSCODE = """<workspace_info>
I am working in a workspace with the following folders:
- /srv/ann/shop{space}
I am working in a workspace that has the following structure:
</workspace_info>
<repository_context>
Repository name: shop
Owner: ann
Current branch: main
Default branch: main
</repository_context>""".replace("{space}", " ")

GEMINI = """This is the Gemini CLI. We are setting up the context for our chat.
My operating system is: linux
I'm currently working in the directory: /srv/ann/shop
Here is the folder structure of the current working directories:"""


def body(text: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], "system": [{"text": text}]}).encode()


@pytest.mark.parametrize(
    ("client", "text", "expected"),
    [
        ("Claude Code", CLAUDE_ENV, Project("environment_block", "/srv/ann/code/bicycle", branch="feature/bell")),
        ("Claude Code", CLAUDE_ENVIRONMENT, Project("environment_block", "/srv/ann/code/bicycle")),
        ("OpenCode", OPENCODE, Project("environment_block", "/srv/shop")),
        ("GitHub Copilot (CLI)", COPILOT_CLI, Project("environment_block", "C:\\git\\shop", "ann/shop")),
        ("Codex", CODEX, Project("environment_context", '/srv/ann/Üben "mit" Radeln')),
        ("GitHub Copilot (VS Code)", VSCODE, Project("workspace_info", "/srv/ann/shop", "ann/shop", "main")),
        ("Gemini CLI", GEMINI, Project("directory_context", "/srv/ann/shop")),
    ],
)
def test_each_tool_says_it_in_its_own_way(client: str, text: str, expected: Project) -> None:
    assert find_project(client, Headers(), body(text)) == expected
    assert find_project(client, Headers(), body("I read about it: " + "x" * 5000 + text)) == expected


@pytest.mark.parametrize("client", ["Claude Code", "Codex", "Gemini CLI", "GitHub Copilot (VS Code)", "Unknown"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Working directory: /etc",
        "What does <env> mean?</env> Working directory: /etc",
        "<environment_context></environment_context><cwd>/etc</cwd>",
        "I am working in a workspace with the following folders: none",
        "I'm currently working in the directory: ",
    ],
)
def test_talk_about_it_says_nothing(client: str, text: str) -> None:
    assert find_project(client, Headers(), body(text)) is None


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("git@github.com:ann/shop.git", "github.com/ann/shop"),
        ("https://github.com/ann/shop", "github.com/ann/shop"),
        ("https://ann:secret@git.example:8443/group/sub/shop.git", "git.example/group/sub/shop"),
        ("ssh://git@git.example:22/shop.git", "git.example/shop"),
        ("/srv/git/shop.git", ""),
        ("https://x/a@b", ""),
        ("", ""),
    ],
)
def test_codex_names_the_remote_in_a_header_and_no_password_gets_through(url: str, repository: str) -> None:
    workspaces = {"/srv/ann/shop": {"associated_remote_urls": {"origin": url}, "has_changes": True}}
    headers = Headers([("x-codex-turn-metadata", json.dumps({"turn_id": "t", "workspaces": workspaces}))])
    found = find_project("Codex", headers, b"{}")
    assert found == Project("turn_metadata", "/srv/ann/shop", repository)
    assert find_project("Claude Code", headers, b"{}") is None


@pytest.mark.parametrize("value", ["", "no json", "{}", '{"workspaces":{}}', '{"workspaces":7}', '{"workspaces":{"":{}}}'])
def test_a_header_without_a_workspace_leaves_the_body_to_say_it(value: str) -> None:
    headers = Headers([("x-codex-turn-metadata", value)])
    found = find_project("Codex", headers, body(CODEX))
    assert found is not None
    assert found.evidence == "environment_context"


def test_metadata_has_what_is_known_and_the_name() -> None:
    assert Project("environment_block", "/srv/shop/").as_metadata() == {
        "project": "shop",
        "project_directory": "/srv/shop/",
        "project_evidence": "environment_block",
    }
    assert Project("workspace_info", "C:\\git\\here", "github.com/ann/shop", "main").as_metadata()["project"] == "shop"


def test_what_is_kept_is_short_and_printable() -> None:
    found = find_project("Codex", Headers(), body(CODEX.replace("/srv", "\u202e" + "/x" * 600)))
    assert found is not None
    assert len(found.directory) < MAX_VALUE_CHARACTERS
    assert found.directory.startswith("/x/x")


_words = st.sampled_from(
    [
        b"<env>",
        b"# Environment",
        b"orking directory: ",
        b"<environment_context>",
        b"<cwd>",
        b"\\",
        b'"',
        b"\\u12",
        b"x",
        b"gitStatus: ",
    ]
)


@given(
    st.sampled_from(["Claude Code", "Codex", "Gemini CLI", "GitHub Copilot (VS Code)", ""]),
    st.lists(_words | st.binary(max_size=5)),
)
def test_any_body_is_looked_at_without_harm(client: str, pieces: list[bytes]) -> None:
    find_project(client, Headers([("x-codex-turn-metadata", b"".join(pieces).decode("latin-1"))]), b"".join(pieces))
