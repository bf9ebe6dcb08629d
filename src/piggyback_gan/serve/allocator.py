"""Settings of the C library's allocator: keep freed memory for the next image."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_memory() -> bool:
    """Let the process keep freed memory until it ends, if the C library is glibc.

    A network's features are large, and glibc returns them to the system when they are freed: each image then
    allocates its pages again, which costs an eighth of the time of a ResNet-9 at 256 pixels (docs/results). The
    process keeps as much as it needed at its peak.

    Returns:
        Whether the setting took effect.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Earlier versions of glibc accept at most 32 MiB for the first.
    threshold = any(mallopt(_MMAP_THRESHOLD, size) for size in (2**30, 2**25))
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and threshold
