"""docs/reliability.md says what the tests show."""

import re

import pytest

from tests.faults import table
from tests.faults.table import DOCUMENT, FAULTS, ROOT


def test_the_document_has_the_table_of_the_tests() -> None:
    assert DOCUMENT.read_text() == table.document(), "run `python -m tests.faults.table`"


def test_every_test_that_is_named_exists() -> None:
    table.table()
    for fault in FAULTS.values():
        file, _, name = fault.test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        if not re.search(rf"^def {name}\(", text, re.MULTILINE):
            pytest.fail(f"tests/{file} has no {name}, which shows: {fault.fault}")
