"""What tests of faults share."""

from collections.abc import Iterator

import pytest

from tests.faults.federation import LONG, Federation, Run


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Nodes a, b and c, for the tests of a module; there is data for d as well."""
    folder = tmp_path_factory.mktemp("federation")
    with Federation(folder, ["a", "b", "c"]) as made:
        yield made


@pytest.fixture(scope="module")
def long_run(federation: Federation) -> Run:
    """A run that goes on until a test ends it; every node trains in every round."""
    run = federation.run("long", **LONG)
    run.wait_for(lambda rows: len(rows) > 1, "the first round")
    return run


@pytest.fixture(autouse=True)
def _answers_are_good(request: pytest.FixtureRequest) -> None:
    """What a test that failed has spoiled is no matter of the next one."""
    if "federation" in request.fixturenames:
        federation: Federation = request.getfixturevalue("federation")
        for name in federation.parties.keys() - {"superlink"}:
            federation.spoil(name, "")
