"""Compares what a server did, in strace's words, with what seco@.service allows.

    systemd-analyze syscall-filter | compare.py UNIT STRACE FOLDER

STRACE is of `strace -f -y`, by which relative paths are told with the folder that they start from.
"""

import os.path
import re
import sys


CHANGES = set("mkdir mkdirat mknod mknodat rename renameat renameat2 unlink unlinkat chmod fchmodat link linkat symlink "
              "symlinkat rmdir truncate utime utimes futimesat utimensat setxattr lsetxattr removexattr lremovexattr".split())


def groups(text):
    """systemd's groups of system calls, by name."""
    found, name = {}, None
    for line in text.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if line.startswith("@"):
            name = line.split()[0]
            found[name] = []
        elif name and line.strip() and not line.strip().startswith("#"):
            found[name].append(line.strip())
    return found


def expand(names, known):
    calls = set()
    for name in names:
        calls |= expand(known[name], known) if name.startswith("@") else {name}
    return calls


def paths(line):
    """All paths of a call, whole and without `..`. A relative one is relative to the folder that strace names before it."""
    for base, path in re.findall(r'(?:<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"', line):
        yield os.path.normpath(os.path.join(base, path))


def makes_code(call, line):
    """What MemoryDenyWriteExecute denies: memory that is, or was, written and is executed."""
    if "PROT_EXEC" not in line:
        return False
    return call in ("mprotect", "pkey_mprotect") or (call == "mmap" and "PROT_WRITE" in line)


def main():
    unit, trace, folder = sys.argv[1:]
    folder = os.path.normpath(folder)
    known = groups(sys.stdin.read())
    settings = [line.strip().split("=", 1) for line in open(unit) if re.match(r"\w+=", line)]
    # Always allowed, whatever the list says.
    allowed = expand(["@default"], known)
    families = set()
    for key, value in settings:
        if key == "SystemCallFilter":
            calls = expand(value.lstrip("~").split(), known)
            allowed = allowed - calls if value.startswith("~") else allowed | calls
        if key == "RestrictAddressFamilies":
            families |= set(value.split())
    allowed |= expand(["@default"], known)

    mistakes, calls, started = set(), 0, False
    for line in open(trace, errors="replace"):
        # What comes before is not the server's doing.
        started = started or re.search(r'execve\("(?![^"]*setpriv).*"serve"', line) is not None
        match = re.match(r"\d+ +(?:<\.\.\. )?(\w+)[( ]", line)
        if not started or match is None:
            continue
        call = match[1]
        calls += 1
        if call not in allowed:
            mistakes.add(f"system call {call}")
        if makes_code(call, line) or (call == "shmat" and "SHM_EXEC" in line):
            mistakes.add(f"memory that was written is executed: {line.strip()}")
        if call == "socket":
            family = re.search(r"socket\((\w+)", line)
            # Refused, these are done without: the C library looks for a cache of names and for addresses of its own.
            if family and family[1] not in families | {"AF_UNIX", "AF_NETLINK"}:
                mistakes.add(f"socket of {family[1]}")
        opened = call in ("open", "openat", "openat2", "creat") and re.search(r"O_WRONLY|O_RDWR|O_CREAT|^\d+ +creat", line)
        if opened or call in CHANGES:
            named = list(paths(line))
            # What a link says is not changed by it.
            for path in named[1:] if call.startswith("symlink") else named:
                if path != "/dev/null" and not (path + "/").startswith(folder + "/"):
                    mistakes.add(f"a file outside its folder is written: {line.strip()}")
    if not started or calls < 1000:
        mistakes.add(f"only {calls} calls were seen: the trace is not whole")
    for mistake in sorted(mistakes):
        print(mistake)
    sys.exit(1 if mistakes else 0)


main()
