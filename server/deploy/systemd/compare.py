"""Compares what a server did, in strace's words, with what seco@.service allows.

    systemd-analyze syscall-filter | compare.py UNIT STRACE FOLDER
"""

import re
import sys


CHANGES = set("mkdir mkdirat rename renameat renameat2 unlink unlinkat chmod fchmodat link linkat symlink symlinkat rmdir "
              "truncate".split())


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


def main():
    unit, trace, folder = sys.argv[1:]
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
        if call in ("mmap", "mprotect", "pkey_mprotect") and "PROT_WRITE" in line and "PROT_EXEC" in line:
            mistakes.add(f"writable and executable memory: {line.strip()}")
        if call == "socket":
            family = re.search(r"socket\((\w+)", line)
            # Refused, these are done without: the C library looks for a cache of names and for addresses of its own.
            if family and family[1] not in families | {"AF_UNIX", "AF_NETLINK"}:
                mistakes.add(f"socket of {family[1]}")
        path = re.search(r'"([^"]*)"', line)
        opened = call in ("open", "openat", "creat") and re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)
        changed = call in CHANGES
        if path and (opened or changed) and not (path[1] + "/").startswith((folder + "/", "/dev/null/")):
            mistakes.add(f"a file outside its folder is written: {line.strip()}")
    if not started or calls < 1000:
        mistakes.add(f"only {calls} calls were seen: the trace is not whole")
    for mistake in sorted(mistakes):
        print(mistake)
    sys.exit(1 if mistakes else 0)


main()
