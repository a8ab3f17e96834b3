"""Where networks are computed, how exactly, and whether by compiled code.

On a CPU a seed gives the same bits; another model of CPU may round otherwise, as torch's libraries
choose their code by its instructions. On a GPU it gives the same history on the same machine as far
as torch has deterministic algorithms, which are then chosen, by rule and not by trial
(``cudnn.benchmark`` stays off); torch warns of an operation that has none.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from typing import Literal

import torch

#: How exactly: in 32 bits throughout; with matrix products and convolutions on a GPU's tensor
#: cores, of 10 bits of mantissa; encoders in bfloat16 by autocast, all else in 32 bits; bfloat16
#: where the device computes in it by itself, else 32 bits.
Precision = Literal["float32", "tf32", "bf16", "auto"]

#: Instructions for products in bfloat16: AVX-512 and AMX of x86, FEAT_BF16 of ARM.
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def find_device(name: str) -> torch.device:
    """Return the device of a name; of "auto", the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by instructions of its own.

    Other CPUs do it by way of float32, in about twice the time that float32 takes. On CPUs torch
    makes use of the instructions by oneDNN, which macOS's has not.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(map(able.get, _BF16_INSTRUCTIONS))


def find_precision(precision: Precision, device: torch.device) -> Precision:
    """Return how exactly a device computes: for "auto", bf16 by :func:`has_bf16`, else float32."""
    if precision == "auto":
        return "bf16" if has_bf16(device) else "float32"
    return precision


def prepare_device(device: torch.device, precision: Precision) -> None:
    """Set how this process computes on a GPU, or keeps the memory of its tensors on a CPU."""
    if device.type != "cuda":
        keep_freed_memory()
        return
    # What cuBLAS needs for the same bits every time; read when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # torch's own default is True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@lru_cache
def keep_freed_memory() -> None:
    """Have glibc keep up to 256 MiB of what tensors free, once per process, for the next batch.

    By itself it gives a batch's memory back to the system and asks for it anew, page by page. Does
    nothing with another C library, or where the environment has settings of glibc's own for it.
    """
    set_by_user = any(name.startswith("MALLOC_") for name in os.environ)
    if set_by_user or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # glibc's malloc.h, M_TRIM_THRESHOLD and so on
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 32 << 20)  # the most that it takes; by itself it comes there too
    libc.mallopt(trim_threshold, 256 << 20)


def set_up_compiler() -> None:
    """Set what compiled encoders need of torch in this process."""
    import torch._functorch.config  # a slow import

    # Signatures go backwards twice through one forward pass.
    torch._functorch.config.donated_buffer = False
    # Counted for all encoders together, in training and in eval mode, with batches of any size;
    # beyond it torch would go on without compiling.
    torch.compiler.config.recompile_limit = 64


@lru_cache
def check_compiler(device: torch.device) -> None:
    """Compile something small, once per process.

    Raises
    ------
    ValueError
        If ``torch.compile`` does not work here; says what to do.
    """
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever compilers and torch's makers of code raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        needed = "g++, Triton and a driver that fits it" if device.type == "cuda" else "g++"
        raise ValueError(
            f"compile: torch.compile does not work on this machine ({reason}): install {needed}, "
            "or set compile to false"
        ) from None
