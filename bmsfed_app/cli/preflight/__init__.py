"""``bmsfed preflight``: whether a machine can take part, before it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bmsfed_app.paths import home

if TYPE_CHECKING:
    from bmsfed_app.config import ExperimentConfig

cli = typer.Typer(help=__doc__, no_args_is_help=True)

Config = Annotated[str, typer.Option(help="The experiment: a YAML file, or a shipped one's name.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A key=value of the experiment; repeatable.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS: for trials on one machine.")]


@cli.command()
def node(
    superlink: Annotated[str, typer.Option(help="HOST:PORT of the SuperLink.")],
    root_certificates: Annotated[Path | None, typer.Option(help="The CA's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="The node's private key.")] = None,
    client_id: Annotated[str, typer.Option(help="As in the node config.")] = "",
    data_dir: Annotated[Path | None, typer.Option(help="As in the node config.")] = None,
    node_config: Annotated[str, typer.Option(help="The rest of the node config.")] = "",
    port: Annotated[int, typer.Option(help="The SuperNode's own port.")] = 9094,
    config: Config = "",
    set_: Settings = None,
    insecure: Insecure = False,
) -> None:
    """Check a node, with the options that `flower-supernode` will get."""
    from bmsfed_app.cli.preflight import certificates, machine, network
    from bmsfed_app.cli.preflight.findings import failed, show, warning

    findings = [*machine.versions(), *machine.disk({"the app": _flower_home()})]
    if root_certificates is not None:
        findings += certificates.authority(root_certificates)
    elif not insecure:
        findings.append(failed("CA certificate", "none: give --root-certificates, or --insecure"))
    if key is not None:
        findings += certificates.node_key(key)
    else:
        findings.append(warning("node key", "none: the server cannot know this node from another"))
    if all(f.level != "FAILED" for f in findings if f.what == "CA certificate"):
        findings += network.superlink(superlink, None if insecure else root_certificates)
    findings.append(network.port_free("127.0.0.1", port, "the SuperNode"))
    if config:
        from bmsfed_app.cli.preflight.data import node_data

        findings += node_data(_load(config, set_), _node(node_config, client_id, data_dir))
    else:
        findings.append(warning("data", "not looked at: give --config, --client-id, --data-dir"))
    raise typer.Exit(show(findings))


@cli.command()
def server(
    certificate: Annotated[Path | None, typer.Option(help="The server's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="The server's private key.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The CA's certificate.")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that nodes use; repeatable.")
    ] = None,
    address: Annotated[str, typer.Option(help="Where the SuperLink listens.")] = "127.0.0.1:8000",
    database: Annotated[Path | None, typer.Option(help="The SuperLink's database.")] = None,
    config: Config = "",
    set_: Settings = None,
    insecure: Insecure = False,
) -> None:
    """Check the server, with the files that `flower-superlink` will get."""
    from bmsfed_app.cli.preflight import certificates, machine, network
    from bmsfed_app.cli.preflight.findings import failed, show, warning

    loaded = _load(config, set_) if config else None
    folders = {"runs": home(), "the app": _flower_home()}
    if database is not None:
        folders["the database"] = database.absolute().parent
    findings = [*machine.versions(), *machine.disk(folders, _size(loaded)), *machine.clock()]
    if certificate and key and ca:
        findings += certificates.server_certificate(certificate, key, ca, host or [])
        if not host:
            findings.append(warning("server certificate", "names not looked at: give --host"))
    elif not insecure:
        findings.append(
            failed("server certificate", "give --certificate, --key and --ca, or --insecure")
        )
    findings.append(network.port_free(*network.split_address(address), "the SuperLink"))
    if loaded is not None:
        from bmsfed_app.cli.preflight.data import server_data

        findings += server_data(loaded)
    else:
        findings.append(warning("data", "not looked at: give --config"))
    raise typer.Exit(show(findings))


def _flower_home() -> Path:
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")


def _load(source: str, pairs: list[str] | None) -> ExperimentConfig:
    from bmsfed_app.config import load_config, parse_pairs

    return load_config(source, parse_pairs(pairs or []))


def _node(text: str, client_id: str, data_dir: Path | None) -> dict[str, Any]:
    """Return a node configuration as Flower reads it."""
    import click

    from bmsfed_app.config import ConfigError
    from strategies._flower import private

    given: dict[str, Any] = {}
    if text:
        try:
            given = private("flwr.common.config:parse_config_args")([text])
        except (ValueError, click.ClickException) as error:
            raise ConfigError(f"--node-config {text!r} cannot be read: {error}") from None
    if client_id:
        given["client-id"] = client_id
    if data_dir is not None:
        given["data-dir"] = str(data_dir)
    return given


def _size(config: ExperimentConfig | None) -> int:
    if config is None:
        return 0
    from bmsfed_app.models.cost import model_bytes

    return model_bytes(config.network_spec())
