"""What networks are trained on: the devices, and how many trainings they take at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nas.evaluation.local import machine


class Hardware(Protocol):
    """The devices of one machine, or of the nodes of a cluster, which should all be the same."""

    def devices(self) -> Mapping[str, int]:
        """How many devices of each kind (cpu, cuda, mps) can be named."""

    def workers(self, device: str) -> int:
        """How many networks are trained at a time on such devices, if the user does not say."""

    def has_bfloat16(self, device: str) -> bool:
        """Whether a device computes with bfloat16 in units of its own."""

    def versions(self) -> Mapping[str, str]:
        """What the last digits of a result depend on, by its name; a resumed search says if it has changed."""


class ThisMachine(Hardware):
    """The machine on which this process runs."""

    def devices(self) -> Mapping[str, int]:
        """The GPUs that PyTorch can use; the driver of one may be too old."""
        import torch

        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return {"cpu": 1, "cuda": cuda, "mps": int(torch.backends.mps.is_available())}

    def workers(self, device: str) -> int:
        """One for a GPU; otherwise as many as there are cores, and memory for.

        In a container with little memory, as many workers as there are cores would be ended by the system.
        """
        fitting = int(machine.MEMORY_SHARE * machine.memory() / (machine.SMALLEST * machine.GIB))
        return max(1, min(machine.cores(), fitting)) if device == "cpu" else 1

    def has_bfloat16(self, device: str) -> bool:
        """Whether PyTorch says so."""
        import torch

        if device.startswith("cuda"):
            with torch.cuda.device(device):
                return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return device == "cpu" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())

    def versions(self) -> Mapping[str, str]:
        """Nothing more than the versions of the packages."""
        return {}
