"""What a node is, as far as it decides what a training returns: nodes that differ cannot give the same result."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from nas import plugins
from nas.evaluation.local import machine

# What decides how PyTorch computes on a processor: other vector units add in another order.
FEATURES = (
    *("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile"),
    *("asimd", "sve", "sve2", "bf16"),
)
SOFTWARE = {"nas": "nas", "torch": "torch", "python": "Python", "layers": "the layers"}
HARDWARE = {"processor": "the processor", "gpu": "the GPU"}


@cache
def software() -> Mapping[str, str]:
    """The versions of everything that a training runs through; of nas its source, too."""
    root = Path(plugins.__file__).parent
    source = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        source.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    layers = [
        f"{point.attr} of {point.dist.name} {point.dist.version}"
        for point in entry_points(group=plugins.GROUPS["layer"])
        if point.dist is not None and point.dist.name != "nas"
    ]
    return {
        "nas": f"{version('nas')} ({source.hexdigest()[:8]})",
        "torch": version("torch"),
        "python": platform.python_version(),
        "layers": ", ".join(sorted(layers)),
    }


def facts(gpus: int) -> dict[str, Any]:
    """The software and the hardware of this machine; ``gpus``: how many of them are for this process."""
    names, units = _gpus() if gpus else ([], False)
    processor = _processor()
    return {
        **software(),
        "processor": " ".join(processor),
        "gpu": names[0] if names else "",
        "bfloat16": {"cpu": "avx512_bf16" in processor, "cuda": units},
        "cores": machine.cores(),
        "memory": machine.memory(),
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    """In what two of them differ, and what each has; empty if they are the same."""
    for name, words in kinds.items():
        mine, others = one.get(name, ""), other.get(name, "")
        if mine == others:
            continue
        if name == "processor":  # only what the other lacks
            a, b = set(mine.split()), set(others.split())
            mine, others = (" ".join(sorted(own)) or "nothing more" for own in (a - b, b - a))
        return f"{words} ({mine or 'none'} and {others or 'none'})"
    return ""


def _processor() -> list[str]:
    """The vector units of the processor; on systems other than Linux its kind."""
    found: list[str] = []
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                found = [feature for feature in FEATURES if feature in flags.split()]
                break
    limit = os.environ.get("ATEN_CPU_CAPABILITY", "")  # PyTorch's own setting
    return [*(found or [platform.machine()]), *([f"ATEN_CPU_CAPABILITY={limit}"] if limit else [])]


def _gpus() -> tuple[list[str], bool]:
    """The names of the GPUs of this process, and whether they have units for bfloat16."""
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return names, bool(names) and torch.cuda.is_bf16_supported(including_emulation=False)
