"""Which bfloat16 arithmetic this machine's processor has; PyTorch is not imported to find out."""

import os
from pathlib import Path

KERNELS = "bfloat16 kernels"
"""Products by the library's own bfloat16 kernels."""

ROUNDED = "float32 kernels, operands rounded to bfloat16"
"""The same products without such kernels: on any processor, at float32's speed."""

_AVX512_CORE = frozenset(("avx512f", "avx512bw", "avx512dq", "avx512vl"))
"""What oneDNN 3 wants for training in bfloat16; AVX512_BF16 only makes it faster."""

_BELOW = frozenset(("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2"))
"""Limits of oneDNN's that rule these instructions out."""


def bfloat16_arithmetic(cpu: Path = Path("/proc/cpuinfo")) -> str:
    """`KERNELS` or `ROUNDED`; the second wherever the system does not tell what the processor has.

    Args:
        cpu: the system's list of processors, as Linux writes it.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return KERNELS if limit.lower() not in _BELOW and _flags(cpu) >= _AVX512_CORE else ROUNDED


def _flags(cpu: Path) -> frozenset[str]:
    try:
        with cpu.open(encoding="utf-8", errors="replace") as lines:
            # All cores of a machine have the same; the file of a large one is long.
            found = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(found.partition(":")[2].split())
