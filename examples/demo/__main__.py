"""Starts a fake provider and a daemon of its own, sends requests with the real SDKs, and prints what was recorded.

Nothing leaves this machine, and nothing of it remains: the provider is made up, the daemon listens on free ports and keeps its
state in a folder that is removed at the end. A daemon that already runs is left alone.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import anthropic
import openai
from rich.console import Console
from rich.table import Table

from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
NEWS = {"type": "function", "name": "get_news", "parameters": WEATHER["input_schema"], "strict": False}

# The metrics that say most at a glance.
SHOWN_METRICS = (
    "coder_ai_gateway_interceptions_total",
    "coder_ai_gateway_tokens_total",
    "coder_ai_gateway_prompts_total",
    "coder_ai_gateway_non_injected_tool_selections_total",
    "coder_ai_gateway_proxy_connect_sessions_total",
    "coder_ai_gateway_proxy_mitm_requests_total",
    "coder_ai_gateway_proxy_mitm_responses_total",
)

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=120)


def main() -> None:
    """Run the demonstration."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aiproxyd-demo-") as name:
        folder = Path(name)
        with FakeProvider(folder) as provider, Daemon(folder / "daemon", provider, users=("alice", "bob")) as daemon:
            console.print(f"[bold]A fake provider[/bold] plays api.anthropic.com and api.openai.com on port {provider.port}.")
            console.print(f"[bold]A daemon[/bold] proxies on {daemon.listen} and administers on {daemon.admin_listen}.\n")
            through(daemon, "alice")
            ask_claude()
            through(daemon, "bob")
            ask_gpt()
            records = daemon.records("", count=5)
            console.print()
            console.print(table_of(records))
            show_details(records)
            show_metrics(daemon)
    console.print(f"\nAll of it took {time.monotonic() - started:.1f} s, and it is gone now.")


def through(daemon: Daemon, user: str) -> None:
    """Send every tool of this process through the daemon, as `user`: the variables of `aiproxyd env`, nothing else."""
    os.environ.pop("https_proxy", None)
    os.environ |= {
        "HTTPS_PROXY": daemon.proxy_url(user),
        "SSL_CERT_FILE": str(daemon.ca_file),
        "NO_PROXY": "localhost,127.0.0.1,::1",
    }


def ask_claude() -> None:
    """A streamed answer, then a tool call and its second turn, with the `anthropic` SDK."""
    client = anthropic.Anthropic(api_key="sk-ant-demo-0123456789", max_retries=0)
    with (
        client,
        client.messages.stream(
            model="claude-demo",
            max_tokens=100,
            messages=[{"role": "user", "content": "Count to eight."}],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream,
    ):
        console.print("alice streams from Claude: ", end="")
        for text in stream.text_stream:
            console.print(text, end="", style="cyan")
        console.print()
    with anthropic.Anthropic(api_key="sk-ant-demo-0123456789", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
        tools: Any = [WEATHER]
        first = client.messages.create(model="claude-demo", max_tokens=100, messages=messages, tools=tools)
        call = next(block for block in first.content if block.type == "tool_use")
        console.print(f"Claude calls [cyan]{call.name}({call.input})[/cyan]; alice's program answers it.")
        messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]})
        messages.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 24 °C"}]}
        )
        client.messages.create(model="claude-demo", max_tokens=100, messages=messages, tools=tools)


def ask_gpt() -> None:
    """A streamed response with a tool call, and a request that fails, with the `openai` SDK."""
    with openai.OpenAI(api_key="sk-proj-demo-0123456789", max_retries=0) as client:
        tools: Any = [NEWS]
        with client.responses.stream(model="gpt-demo", input="Any news?", tools=tools, reasoning={"effort": "low"}) as stream:
            final = stream.get_final_response()
        names = [item.name for item in final.output if item.type == "function_call"]
        console.print(f"bob streams a response from GPT, which calls [cyan]{', '.join(names)}[/cyan].")
        try:
            client.chat.completions.create(model="gpt-demo+status=429", messages=[{"role": "user", "content": "Once more!"}])
        except openai.RateLimitError as error:
            console.print(f"bob asks once more and gets [red]{error.status_code}[/red].")


def table_of(records: list[dict[str, Any]]) -> Table:
    """Return the records as a table."""
    table = Table(title="aiproxyd interceptions list", title_justify="left")
    for heading in ("user", "model", "prompt", "tools", "in", "cache", "out", "outcome"):
        table.add_column(heading, justify="right" if heading in {"in", "cache", "out"} else "left")
    for record in records:
        usages = record["token_usages"]
        cached = sum(row["cache_read_input_tokens"] + row["cache_write_input_tokens"] for row in usages)
        table.add_row(
            record["initiator"]["name"],
            record["model"],
            ", ".join(row["prompt"] for row in record["user_prompts"]) or "-",
            ", ".join(row["tool"] for row in record["tool_usages"]) or "-",
            str(sum(row["input_tokens"] for row in usages)),
            str(cached),
            str(sum(row["output_tokens"] for row in usages)),
            record["outcome"],
        )
    return table


def show_details(records: list[dict[str, Any]]) -> None:
    """Print what does not fit into a table: arguments, reasoning, errors."""
    for record in records:
        for row in record["tool_usages"]:
            console.print(f"  {record['model']} called {row['tool']} with {row['input']}")
        for row in record["model_thoughts"]:
            console.print(f"  {record['model']} thought: {row['content']}  ({row['metadata']['source']})")
        if record["error_type"]:
            console.print(f"  {record['model']} failed: {record['error_type']}, {record['error_message']}")


def show_metrics(daemon: Daemon) -> None:
    """Print the lines of /metrics that the requests above moved."""
    daemon.wait_for_metric(5, "coder_ai_gateway_interceptions_total")
    console.print(f"\n[bold]{daemon.admin_url}/metrics[/bold]")
    for line in daemon.metrics().text.splitlines():
        if line.startswith(SHOWN_METRICS) and not line.endswith(" 0.0"):
            console.print("  " + line, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
