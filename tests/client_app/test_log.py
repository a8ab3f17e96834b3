"""A device's own log has a line for every message that it answered."""

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from bmsfed_app.config import load_config
from client_app import log
from client_app.app import app
from client_app.log import log_file
from client_app.redaction import ClientError
from strategies import Orders, Task
from strategies.federation.enrolment import ask_enrolment
from strategies.federation.wire import ENROL, pack_task
from strategies.testing import FakeGrid


def node(**config: str) -> Context:
    return Context(0, 7, dict(config), RecordDict(), {})


def enrolment() -> Message:
    FakeGrid({})  # messages belong to a run
    settings = load_config("cg-digits").client_settings().to_json()
    return Message(ask_enrolment(settings), 7, ENROL, group_id="3")


def test_an_error_is_in_the_log_in_one_line(tmp_path: Path) -> None:
    given = {"client-id": "alice", "data-dir": str(tmp_path / "nowhere"), "log-dir": str(tmp_path)}
    for _ in range(2):
        with pytest.raises(ClientError, match="nowhere"):
            app(enrolment(), node(**given))
    lines = (tmp_path / "alice.log").read_text().splitlines()
    assert len(lines) == 2
    assert "ERROR   round 3: query.enrol, 0." in lines[0]
    assert "nowhere" in lines[0]


def test_an_answer_is_in_the_log_by_default_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path))
    context = node(**{"client-id": "bob"})
    message = enrolment()
    reply = Message(RecordDict(), reply_to=message)
    assert log.logged(message, context, lambda *_: reply) is reply
    orders = Orders("train", ("colored", "gray"))
    message = Message(pack_task(Task(orders, {})), 7, "train", group_id="4")
    log.logged(message, context, lambda *_: Message(RecordDict(), reply_to=message))
    lines = (tmp_path / "logs/bob.log").read_text().splitlines()
    assert [line.partition("INFO    ")[2] for line in lines] == [
        *("round 3: query.enrol, 0.0 s", "round 4: train colored+gray, 0.0 s"),
    ]


def test_files_are_turned_over_and_stay_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_SIZE", 150)
    context = node(**{"client-id": "../../a b", "log-dir": str(tmp_path / "logs")})
    assert log_file(context) == tmp_path / "logs" / "_.._a_b.log"
    message = enrolment()
    for _ in range(20):
        log.logged(message, context, lambda *_: Message(RecordDict(), reply_to=message))
    names = sorted(p.name for p in (tmp_path / "logs").iterdir())
    assert names == ["_.._a_b.log", *(f"_.._a_b.log.{n}" for n in (1, 2, 3))]


def test_no_log_is_no_reason_not_to_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = enrolment()
    reply = Message(RecordDict(), reply_to=message)
    context = node(**{"client-id": "bob", "log-dir": str(tmp_path / "file")})
    assert log.logged(message, context, lambda *_: reply) is reply


def test_simulated_clients_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path))
    message = enrolment()
    reply = Message(RecordDict(), reply_to=message)
    context = node(**{"partition-id": "0", "num-partitions": "2"})
    assert log.logged(message, context, lambda *_: reply) is reply
    assert not list(tmp_path.iterdir())
