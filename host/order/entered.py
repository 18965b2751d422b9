"""entered.py OUT FILE... -- COMMAND...: which functions of FILEs a run of COMMAND enters, in the order of their first use.

COMMAND maps the FILEs, a program and compiled components with their symbols; its standard input and output stay its own. OUT gets one
line for each more: the file's name, and the function's. While it runs a breakpoint stands in the file at each function, and in the process until it is hit, so that
the run is slowed by some thousand stops only: stepping through all its instructions takes a minute, and the deadline of the call is over."""

import ctypes
import os
import signal
import struct
import sys

TRACEME, CONT, GETREGS, SETREGS = 0, 7, 12, 13  # ptrace(2)
RIP = 16  # of struct user_regs_struct, x86-64
INT3 = b"\xcc"
# elf(5): STT_NOTYPE (of what assembler has no more about) and STT_FUNC, SHT_SYMTAB, SHF_EXECINSTR, ET_REL
KINDS, SYMTAB, EXECUTABLE, RELOCATABLE = (0, 2), 2, 4, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def functions(elf):
    """{where in the file: [names]} (elf(5))"""
    kind, = struct.unpack_from("<H", elf, 16)
    table, = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + at * size) for at in range(count)]
    found = {}
    for section in sections:
        if section[1] != SYMTAB:
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, info, _, where, value, _ = struct.unpack_from("<IBBHQQ", elf, at)
            if info & 15 in KINDS and name and 0 < where < count and sections[where][2] & EXECUTABLE:
                address = 0 if kind == RELOCATABLE else sections[where][3]
                end = elf.index(b"\0", names + name)
                found.setdefault(value - address + sections[where][4], []).append(elf[names + name : end].decode())
    return found


class Traced:
    """A file with breakpoints in it while it is used."""

    def __init__(self, path):
        self.path = path
        self.times = os.stat(path)
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.names = functions(self.bytes)
        covered = bytearray(self.bytes)
        for at in self.names:
            covered[at : at + 1] = INT3
        self.write(covered)

    def write(self, content):
        # The same file with the same times: to whom maps it nothing has changed.
        with open(self.path, "r+b") as file:
            file.write(content)
        os.utime(self.path, ns=(self.times.st_atime_ns, self.times.st_mtime_ns))


def find(pid, address):
    """(path, where in the file) of what is mapped there."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        for line in maps:
            words = line.split()
            start, end = (int(part, 16) for part in words[0].split("-"))
            if start <= address < end:
                return words[-1], address - start + int(words[2], 16)
    return None, 0


def entered(traced, command):
    pid = os.fork()
    if not pid:
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(command[0], command)
    os.waitpid(pid, 0)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
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
        address = registers[RIP] - 1
        path, at = find(pid, address)
        file = traced.get(path)
        if file and at in file.names:
            os.pwrite(memory, file.bytes[at : at + 1], address)
            registers[RIP] = address
            libc.ptrace(SETREGS, pid, None, ctypes.byref(registers))
            yield from (f"{os.path.basename(path)} {name}" for name in file.names[at])


def main():
    out, *rest = sys.argv[1:]
    paths, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    traced = {}
    try:
        for path in paths:
            path = os.path.realpath(path)
            traced[path] = Traced(path)
        with open(out, "a", encoding="utf-8") as names:
            names.writelines(f"{name}\n" for name in entered(traced, command))
    finally:
        for file in traced.values():
            file.write(file.bytes)


main()
