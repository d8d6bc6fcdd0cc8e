"""`aiproxyd providers`: what the configuration makes of its provider entries."""

import typer

from aiproxyd.commands.configuration import ConfigOption, read_configuration
from aiproxyd.commands.table import Output, OutputOption, print_rows

app = typer.Typer(help="The AI providers whose traffic is decrypted.", rich_markup_mode=None)


@app.command("list")
def list_(output: OutputOption = Output.TABLE, config: ConfigOption = None) -> None:
    """List the providers with their hosts and status.

    For example:

      aiproxyd providers list

      aiproxyd providers list --output json
    """
    from aiproxyd.config.providers import provider_table
    from aiproxyd.model.authority import Authority

    settings = read_configuration(config)
    rows = []
    for provider in provider_table(settings).providers:
        ports: dict[str, list[int]] = {}
        for host, port in provider.authorities:
            ports.setdefault(host, []).append(port)
        usual = list(settings.egress.allowed_ports)
        rows.append(
            {
                "name": provider.name,
                "type": provider.type,
                "status": provider.status.value,
                "hosts": [
                    name
                    for host, each in ports.items()
                    for name in ([host] if each == usual else [str(Authority(host, port)) for port in each])
                ],
                "path_prefix": provider.path_prefix,
                "reason": provider.reason,
            }
        )
    print_rows(rows, ["name", "type", "status", "hosts", "reason"], output=output, empty="no provider is configured")
