"""A process that trains on a CPU keeps the memory of one batch for the next."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from bmsfed_app.models.encoders.plain import Conv4

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's malloc")

#: How often the system hands out a page anew in ten rounds of four tensors, made and freed.
FAULTS = """
import resource
import torch
from bmsfed_app.devices import prepare_device

prepare_device(torch.device("cpu"), "float32")

def batch():
    made = [torch.ones(5_000_000) for _ in range(4)]

for _ in range(3):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    run = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=own | {"CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@GLIBC
def test_memory_of_a_batch_is_kept_for_the_next():
    a_batch = 4 * 5_000_000 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert faults() < a_batch / 2  # of ten batches


@GLIBC
@pytest.mark.parametrize(
    "own",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_settings_of_the_environment_stand(own):
    a_batch = 4 * 5_000_000 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert faults(**own) > a_batch * 2


def test_pooling_before_the_rectifier_gives_the_bits_of_pooling_after_it():
    torch.manual_seed(0)
    images = torch.randn(6, 3, 28, 28)
    images[0] = 0  # ties within a window, and a window with nothing above 0
    network = Conv4((3, 28, 28))
    as_in_the_paper = list(network.layers)
    pool, relu = as_in_the_paper[2:4]
    assert isinstance(pool, nn.MaxPool2d)
    assert isinstance(relu, nn.ReLU)
    as_in_the_paper[2:4] = [relu, pool]
    found = []
    for layers in (network.layers, nn.Sequential(*as_in_the_paper)):
        network.zero_grad()
        features = layers(images.contiguous(memory_format=network.layout))
        features.square().sum().backward()
        found.append([features.detach(), *(p.grad.clone() for p in network.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
