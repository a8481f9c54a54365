"""A wall clock that somebody else sets: on PYTHONPATH it shifts this process's wall time by what MONEY_CLOCK's file says.

The file holds nanoseconds as a signed 64-bit integer. The monotonic clock is left alone, as when a machine's time is set.
"""

import mmap
import os
import struct
import time

_place = os.environ.get("MONEY_CLOCK")
if _place:
    _file = os.open(_place, os.O_RDONLY)
    _shared = mmap.mmap(_file, 8, prot=mmap.PROT_READ)
    os.close(_file)
    _step_ns = struct.Struct("<q").unpack_from
    _time, _time_ns = time.time, time.time_ns
    time.time_ns = lambda: _time_ns() + int(_step_ns(_shared)[0])
    time.time = lambda: _time() + _step_ns(_shared)[0] / 1e9
