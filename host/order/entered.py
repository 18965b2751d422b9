"""entered.py BINARY OUT COMMAND...: which functions of BINARY a run of COMMAND enters, in the order of their first use.

COMMAND executes BINARY itself or a link to it; its standard input and output stay its own. BINARY has its symbols. The names are appended to
OUT, one a line. A breakpoint stands at each function until it is hit, so that the run is slowed by some thousand stops only:
stepping through all its instructions takes a minute, and the deadline of the call is over."""

import ctypes
import os
import signal
import subprocess
import sys

TRACEME, CONT, GETREGS, SETREGS = 0, 7, 12, 13  # ptrace(2)
RIP = 16  # of struct user_regs_struct, x86-64
INT3 = b"\xcc"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def functions(binary):
    """{offset: [names]}"""
    found = {}
    listed = subprocess.run(["nm", "--defined-only", binary], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        offset, kind, name = line.split(" ", 2)
        if kind in "tTwW":
            found.setdefault(int(offset, 16), []).append(name)
    return found


def image(pid, program):
    """Where the program is mapped."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        for line in maps:
            if line.rstrip().endswith(program):
                return int(line.split("-")[0], 16)
    sys.exit(f"entered.py: {program} is not mapped in process {pid}: is COMMAND a link to BINARY?")


def entered(names, command):
    pid = os.fork()
    if not pid:
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(command[0], command)
    os.waitpid(pid, 0)
    program = os.path.realpath(command[0])
    base = image(pid, program)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    covered = {}
    for offset in names:
        covered[offset] = os.pread(memory, 1, base + offset)
        os.pwrite(memory, INT3, base + offset)
    registers = (ctypes.c_ulonglong * 27)()
    pending = 0
    while True:
        libc.ptrace(CONT, pid, None, pending)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if status:
                sys.exit(f"entered.py: {command} ended with status {status}")
            return
        pending = os.WSTOPSIG(status)
        if pending != signal.SIGTRAP:
            continue
        pending = 0
        libc.ptrace(GETREGS, pid, None, ctypes.byref(registers))
        at = registers[RIP] - 1 - base
        if at not in names:
            # It has moved itself to where its memory image has it, and the breakpoints with it.
            base = image(pid, program)
            at = registers[RIP] - 1 - base
        if at in covered:
            os.pwrite(memory, covered.pop(at), base + at)
            registers[RIP] = base + at
            libc.ptrace(SETREGS, pid, None, ctypes.byref(registers))
            yield from names[at]


if __name__ == "__main__":
    binary, out, *command = sys.argv[1:]
    with open(out, "a", encoding="utf-8") as file:
        file.writelines(name + "\n" for name in entered(functions(binary), command))
