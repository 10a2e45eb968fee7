"""Running a step of the start in a process of its own."""

import os
import sys
from collections.abc import Callable

from ..errors import StateroomError

_FAILED = 1


def run_apart(work: Callable[[], None]) -> None:
    """Run ``work`` in a child process, and wait for it: whatever threads it starts end there, so that this process may
    still fork. Raises StateroomError with the text of the one that ``work`` raises.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        os.close(reader)
        code = _FAILED
        try:
            work()
            code = 0
        except StateroomError as error:
            os.write(writer, error.detail.encode()[:60_000])  # fits into the pipe
        except BaseException as error:  # noqa: BLE001 - this process ends here
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:60_000])
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        detail = answer.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise StateroomError(detail or "the start was interrupted")
