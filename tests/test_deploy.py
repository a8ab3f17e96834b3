"""What deploy/ says to call takes the options that it is given."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bmsfed_app.cli.main import cli
from client_app.node import KEYS

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "docker/compose.yaml", DEPLOY / "docker/compose.tls.yaml"


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))


def written(program: str) -> set[str]:
    """All options that a program of Flower is given in the guide, the units and the images."""
    found: set[str] = set()
    for file in (DEPLOY / "README.md", *DEPLOY.rglob("*.service"), ROOT / "README.md"):
        for command in re.findall(rf"{program}((?: .*\\\n)*.*)", file.read_text()):
            found |= options(command.split("`")[0])
    side = "superlink" if program.endswith("link") else "supernode"
    image = (DEPLOY / f"docker/{side}.Dockerfile").read_text()
    found |= options(image[image.index("ENTRYPOINT") :])
    for file in COMPOSE:
        for name, service in yaml.safe_load(file.read_text())["services"].items():
            if (name == "superlink") == (side == "superlink"):
                found |= options(" ".join(service["command"]))
    return found


@pytest.mark.parametrize("program", ["flower-superlink", "flower-supernode"])
def test_flowers_programs_take_these_options(program: str) -> None:
    beside = Path(sys.executable).parent / program
    told = subprocess.run([beside, "--help"], capture_output=True, text=True, check=True).stdout
    given = written(program)
    assert len(given) > 5
    assert given <= options(told)


@pytest.mark.parametrize("form", ["node", "server"])
def test_preflight_takes_these_options(form: str) -> None:
    told = CliRunner().invoke(cli, ["preflight", form, "--help"], env={"COLUMNS": "200"}).output
    given = set()
    for command in re.findall(
        rf"bmsfed preflight {form}((?: .*\\\n)*.*)", (DEPLOY / "README.md").read_text()
    ):
        given |= options(command.split("`")[0])
    assert len(given) >= 6
    assert given <= options(re.sub(r"\x1b\[[0-9;]*m", "", told))


def node_configs() -> list[set[str]]:
    texts = [f.read_text() for f in (DEPLOY / "README.md", *DEPLOY.rglob("*.env"), *COMPOSE)]
    return [
        set(re.findall(r'([\w-]+)=["\d]', config))
        for text in texts
        for config in re.findall(r"(?:node-config[= ]'?|NODE_CONFIG=')(.*client-id.*)", text)
    ]


def test_node_configurations_have_keys_that_are_read() -> None:
    found = node_configs()
    assert len(found) >= 6
    for keys in found:
        assert {"client-id", "data-dir"} <= keys <= set(KEYS)
    values: Any = yaml.safe_load((DEPLOY / "kubernetes/values-supernode.yaml").read_text())
    assert set(values["supernode"]["node"]["config"]) <= set(KEYS)


def test_containers_are_confined_and_see_only_what_they_need() -> None:
    plain, tls = (yaml.safe_load(file.read_text()) for file in COMPOSE)
    for service in plain["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["logging"]["options"]["max-size"]
    for name, service in tls["services"].items():
        assert "--insecure" not in service["command"]
        keys = {s for s in service["secrets"] if s.endswith(".key")}
        assert keys == {"server.key" if name == "superlink" else f"{name}.key"}
    for image in DEPLOY.glob("docker/*.Dockerfile"):
        text = image.read_text()
        assert "\nUSER 10001\n" in text
        assert "\nHEALTHCHECK " in text
        for copied in re.findall(r"^COPY (?:--\S+ )?(.*) \S+$", text, re.M):
            for source in copied.split():
                assert (ROOT / source).exists(), source
