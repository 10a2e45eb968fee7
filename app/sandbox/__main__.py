"""The child process: set resource limits, call the named function, answer, end."""

import gc
import importlib
import resource
import sys

from ..errors import HostileCheckpoint, StateroomError
from .wire import error_to_bytes, join_parts, split_parts


def main() -> None:
    module, name = sys.argv[1:3]
    seconds, memory = map(int, sys.argv[3:])
    gc.disable()  # a parse makes millions of objects and no garbage; collecting would double its time
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    function = getattr(importlib.import_module(module), name)
    try:
        answer = b"+" + join_parts(function(*split_parts(memoryview(sys.stdin.buffer.read()))))
    except StateroomError as error:
        answer = b"-" + error_to_bytes(error)
    except MemoryError:
        answer = b"-" + error_to_bytes(HostileCheckpoint("the file takes too much memory to read", rule="memory"))
    sys.stdout.buffer.write(answer)


main()
