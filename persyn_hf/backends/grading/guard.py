"""Be the first process of a container: run a program, and end all of the container with it or when its time is over.

    python -c THIS_FILE SECONDS PROGRAM

A container outlives the command that has started it, so its time is watched within it. The kernel ends every process
of a container with its first, which no other there can signal or trace. It runs by itself, as `inside.py` does, and
imports nothing of persyn. As outside (watched.py), time in which the container's processes wait for a processor does
not count, up to `STARVED` times the bound.
"""

import os
import sys
import time


LOOK_S = 0.01
STARVED = 10
LATE = 124  # the exit status when time is over, as `timeout` has it


def main() -> None:
    """Run the program in a child, and go when it does, with its status."""
    seconds, program = float(sys.argv[1]), sys.argv[2]
    child = os.fork()
    if child == 0:
        exec(compile(program, "inside.py", "exec"), {"__name__": "__main__"})
        return
    for number in (0, 1, 2):
        os.close(number)
    be_closed()
    begun = time.monotonic()
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)  # of any child: it inherits those whose parents are gone
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        late = time.monotonic() - begun - seconds
        if late > 0 and late > min(longest_wait(), (STARVED - 1) * seconds):
            os._exit(LATE)
        if not ended:
            time.sleep(LOOK_S)


def be_closed() -> None:
    """Keep others of the same user from tracing this process and from writing to its memory, where Python can."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    except (ImportError, OSError, AttributeError):
        return


def longest_wait() -> float:
    """Return the seconds for which some process here was ready to run and had no processor."""
    waits = [0.0]
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/schedstat") as file:
                waits.append(int(file.read().split()[1]) / 1e9)
        except (OSError, IndexError):
            continue
    return max(waits)


if __name__ == "__main__":
    main()
