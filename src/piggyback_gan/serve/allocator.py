"""The C library's allocator, told to keep what a network frees for the next image."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_memory() -> bool:
    """Let the process keep freed memory, where the C library is glibc; for the rest of its life.

    A network's features are large, and glibc gives them back to the system when they are freed: each image
    takes its pages anew, which costs an eighth of the time of a ResNet-9 at 256 pixels (docs/results). What is
    kept is what was needed at once.

    Returns:
        Whether it does now.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Earlier versions of glibc take no more than 32 MiB for the first.
    threshold = any(mallopt(_MMAP_THRESHOLD, size) for size in (2**30, 2**25))
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and threshold
