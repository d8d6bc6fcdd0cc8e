"""The lines that bring a tool to the proxy, for each tool and shell. Pure.

Facts: `NODE_EXTRA_CA_CERTS` and `CODEX_CA_CERTIFICATE` add to what a tool trusts; `SSL_CERT_FILE` and its kind replace it, so
they name a bundle of the system's roots and ours. docs/clients.md says who reads which.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

NO_PROXY = "localhost,127.0.0.1,::1"

FOLDER = "$HOME/.aiproxyd"
"""Where the lines put the certificates on the client's machine; every shell here knows `$HOME`."""


class Shell(enum.StrEnum):
    """Whose syntax is shown."""

    BASH = "bash"
    FISH = "fish"
    POWERSHELL = "powershell"


class Trust(enum.Flag):
    """How a tool learns of a CA."""

    NODE = enum.auto()
    CODEX = enum.auto()
    BUNDLE = enum.auto()


class Tool(NamedTuple):
    """A tool and what it needs."""

    key: str
    name: str
    trust: Trust
    command: str
    """What starts it, to try; may be empty."""
    note: str = ""


_ALL = Trust.NODE | Trust.CODEX | Trust.BUNDLE

TOOLS: Sequence[Tool] = (
    Tool("any", "Any tool in this shell", _ALL, ""),
    Tool("claude-code", "Claude Code", Trust.NODE, "claude", "Sub-agents and sessions are told apart by themselves."),
    Tool("codex", "Codex", Trust.CODEX, "codex", "Wrong credentials show as “Reconnecting… 1/5”."),
    Tool("copilot-cli", "GitHub Copilot CLI", Trust.NODE, "copilot"),
    Tool(
        "vscode",
        "VS Code with Copilot",
        Trust.NODE,
        "code .",
        "Start it from the shell. It reads http.proxy of its settings, too; the CA must be in the system's store for chat.",
    ),
    Tool("gemini-cli", "Gemini CLI", Trust.NODE, "gemini"),
    Tool("opencode", "OpenCode", Trust.NODE, "opencode"),
    Tool("qwen-code", "Qwen Code", Trust.NODE, "qwen"),
    Tool("aider", "aider", Trust.BUNDLE, "aider"),
    Tool("python", "Python SDKs", Trust.BUNDLE, "python app.py", "OpenAI, Anthropic, google-genai, LiteLLM, boto3, requests."),
    Tool("node", "Node SDKs", Trust.NODE, "node app.js", "Node 22.21 or newer; older ones have no NODE_USE_ENV_PROXY."),
    Tool("curl", "curl and git", Trust.BUNDLE, "curl https://api.anthropic.com/v1/models"),
)


def tool_of(key: str) -> Tool:
    """Return a tool, the first one where there is none of this key."""
    return next((tool for tool in TOOLS if tool.key == key), TOOLS[0])


def shell_of(name: str) -> Shell:
    """Return a shell, bash where there is none of this name."""
    return Shell(name) if name in list(Shell) else Shell.BASH


def proxy_url(authority: str, user: str, token: str) -> str:
    """Return the proxy's URL with credentials; without any where there is no user."""
    credentials = f"{quote(user, safe='')}:{quote(token, safe='')}@" if user else ""
    return f"http://{credentials}{authority}"


def certificate_lines(admin_url: str, tool: Tool, shell: Shell) -> list[str]:
    """Return the lines that fetch the CA's certificate, and make a bundle where the tool needs one."""
    if shell is Shell.POWERSHELL:
        lines = [
            'New-Item -ItemType Directory -Force "$HOME/.aiproxyd" | Out-Null',
            f'Invoke-WebRequest "{admin_url}/ca-cert.pem" -OutFile "{FOLDER}/ca-cert.pem"',
        ]
        if Trust.BUNDLE in tool.trust:
            lines.append(f'Invoke-WebRequest "https://curl.se/ca/cacert.pem" -OutFile "{FOLDER}/roots.pem"')
            lines.append(f'Get-Content "{FOLDER}/roots.pem", "{FOLDER}/ca-cert.pem" | Set-Content "{FOLDER}/bundle.pem"')
        return lines
    lines = [f'mkdir -p "{FOLDER}"', f'curl -fsS -o "{FOLDER}/ca-cert.pem" "{admin_url}/ca-cert.pem"']
    if Trust.BUNDLE in tool.trust:
        roots = "/etc/ssl/certs/ca-certificates.crt"
        lines.append(f'cat {roots} "{FOLDER}/ca-cert.pem" > "{FOLDER}/bundle.pem"   # macOS, Fedora: /etc/ssl/cert.pem')
    return lines


def variables(url: str, tool: Tool) -> dict[str, str]:
    """Return the variables that a tool needs."""
    found = {"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": NO_PROXY}
    if Trust.NODE in tool.trust:
        found |= {"NODE_EXTRA_CA_CERTS": f"{FOLDER}/ca-cert.pem", "NODE_USE_ENV_PROXY": "1"}
    if Trust.CODEX in tool.trust:
        found["CODEX_CA_CERTIFICATE"] = f"{FOLDER}/ca-cert.pem"
    if Trust.BUNDLE in tool.trust:
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
        found |= dict.fromkeys(names, f"{FOLDER}/bundle.pem")
    return found


def export_lines(found: dict[str, str], shell: Shell) -> list[str]:
    """Return the lines that set variables. Values hold nothing a shell would take for its own but `$HOME`."""
    template = {
        Shell.BASH: 'export {}="{}"',
        Shell.FISH: 'set -gx {} "{}"',
        Shell.POWERSHELL: '$env:{} = "{}"',
    }[shell]
    return [template.format(name, value) for name, value in found.items()]
