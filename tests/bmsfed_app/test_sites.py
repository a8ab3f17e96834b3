"""Partitions listed in a CSV file: what it may say, and the line that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmsfed_app.partitions import PartitionError, Share, read_partition, share_out

LABELS = np.arange(8) % 2
IDS = np.array(["s1", "s0", "é", "s3", "s4", "s5", "s6", "s7"])


def share(folder: Path, text: str, number: int = 2, ids: Any = None, **given: Any) -> list[Share]:
    file = folder / "sites.csv"
    file.write_bytes(text.encode())
    settings = read_partition({"partition": "file", "partition_file": str(file), **given})
    return share_out(LABELS, ("a", "b"), settings, number, seed=0, ids=ids)


def test_rows_by_number_and_by_id(tmp_path: Path) -> None:
    text = "client,sample\nzoo,7\nark,2\nzoo,0\n"
    found = {s.name: (s.rows.tolist(), s.modalities) for s in share(tmp_path, text)}
    assert found == {"zoo": ([0, 7], ("a", "b")), "ark": ([2], ("a", "b"))}
    assert list(found) == ["zoo", "ark"]  # in the file's order
    text = "client,sample\nzoo,s0\nark,é\nzoo,s1\n"
    assert [s.rows.tolist() for s in share(tmp_path, text, ids=IDS)] == [[0, 1], [2]]


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    text = '\ufeffsample, client ,modalities\r\n0,zoo,"a b"\r\n\r\n 1 ,ark,b\r\n2,zoo,b+a\r\n,,\r\n'
    found = {s.name: (s.rows.tolist(), s.modalities) for s in share(tmp_path, text)}
    assert found == {"zoo": ([0, 2], ("a", "b")), "ark": ([1], ("b",))}


def test_the_other_settings_apply(tmp_path: Path) -> None:
    text = "client,sample\n" + "".join(f"{'xy'[i % 2]},{i}\n" for i in range(8))
    capped = share(tmp_path, text, samples_per_client=3)
    assert [len(s.rows) for s in capped] == [3, 3]
    halved = share(tmp_path, text, data_fraction=0.5)
    assert [len(s.rows) for s in halved] == [2, 2]
    assert all((s.rows % 2 == i).all() for i, s in enumerate(halved))
    assert sorted(s.modalities for s in share(tmp_path, text, whole_share=0.0)) == [("a",), ("b",)]


REFUSED: list[tuple[str, str]] = [
    ("", r"line 1: the column 'client' is missing"),
    ("client,sampel\nx,1\n", "line 1: unknown column 'sampel'; did you mean 'sample'"),
    ("client,sample,client\nx,1,x\n", "line 1: the column 'client' stands there twice"),
    ("client,sample\n", "sites.csv lists no samples"),
    ("client,sample\nx,1\ny\n", "line 3: expected 2 values"),
    ("client,sample\nx,1\n\ny,8\n", "line 4: no sample '8': expected a row number from 0 to 7"),
    ("client,sample\nx,one\ny,2\n", "line 2: no sample 'one'"),
    ("client,sample\nx,1\ny,2\ny,1\n", "line 4: sample '1' is listed already, on line 2"),
    ("client,sample\nx,1\n../y,2\n", r"line 3: client '\.\./y': letters, digits"),
    ("client,sample\nx,1\n", "lists 1 clients, the federation has 2: set clients to 1"),
    ("client,sample\nx,1\ny,2\nz,3\n", "lists 3 clients, the federation has 2"),
    ("client,sample,modalities\nx,1,a\ny,2,c\n", r"line 3: no modality 'c' \(the data set has a"),
    ("client,sample,modalities\nx,1,a\ny,2,\n", "line 3: names no modality; name some of a, b"),
    (
        "client,sample,modalities\nx,1,a b\ny,2,a\nx,3,b+a\nx,4,a\n",
        "line 5: client 'x' holds 'a' here, 'a b' on line 2",
    ),
    ("client,sample,modalities\nx,1,a\ny,2,a\n", "no client holds modality 'b'"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_the_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PartitionError, match=message) as caught:
        share(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_contradicts_the_other_settings_is_refused(tmp_path: Path) -> None:
    text = "client,sample\nx,1\ny,2\n"
    with pytest.raises(PartitionError, match="client 'x' would have 1 samples, min_samples is 2"):
        share(tmp_path, text, min_samples=2)
    with pytest.raises(PartitionError, match="line 2: no sample '1': expected a training sample's"):
        share(tmp_path, text, ids=IDS)
    text = "client,sample,modalities\nx,1,a\ny,2,b\n"
    with pytest.raises(PartitionError, match="leave whole_share at 1, or the column out"):
        share(tmp_path, text, whole_share=0.5)
    settings = read_partition(
        {"partition": "file", "partition_file": str(tmp_path / "nowhere.csv")}
    )
    with pytest.raises(PartitionError, match=r"partition_file: cannot read '.*nowhere\.csv'"):
        share_out(LABELS, ("a", "b"), settings, 2, seed=0)
