"""Reads what a check of packages wants to know of class files, and of shared libraries."""

import re
import struct

NATIVE = 0x0100


class Class:
    """A class file: `major` version, `name`, what it `extends` (class and interfaces), whether a method is `native`, and
    `strings`, all text in it. Names have slashes. (Java Virtual Machine Specification, chapter 4)"""

    def __init__(self, data):
        magic, _, self.major, count = struct.unpack_from(">IHHH", data)
        if magic != 0xCAFEBABE:
            raise ValueError("no class file")
        self.data, self.at = data, 10
        pool, index = {}, 1
        while index < count:
            kind = self.take(">B")
            if kind == 1:
                length = self.take(">H")
                pool[index] = data[self.at : self.at + length].decode("utf-8", "replace")
                self.at += length
            elif kind in (7, 8, 16, 19, 20):
                pool[index] = self.take(">H")
            elif kind == 15:
                self.at += 3
            elif kind in (5, 6):
                self.at += 8
                index += 1
            else:
                self.at += 4
            index += 1
        self.strings = {text for text in pool.values() if isinstance(text, str)}
        self.take(">H")
        self.name = pool[pool[self.take(">H")]]
        above = [self.take(">H")]
        above += [self.take(">H") for _ in range(self.take(">H"))]
        self.extends = [pool[pool[index]] for index in above if index]
        self.members()
        self.native = any(flags & NATIVE for flags in self.members())

    def take(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def members(self):
        """Flags of all fields, or of all methods, which come next."""
        found = []
        for _ in range(self.take(">H")):
            found.append(self.take(">H"))
            self.at += 4
            for _ in range(self.take(">H")):
                self.at += 2
                length = self.take(">I")
                self.at += length
        return found


# What JNA calls the folder of a system, or Android: name of the library, and bytes of its file's header.
ELF64, ELF32 = (4, b"\x02\x01"), (4, b"\x01\x01")


def elf(machine, width=ELF64):
    return "libseco.so", [(0, b"\x7fELF"), width, (16, struct.pack("<HH", 3, machine))]


def mach_o(processor):
    return "libseco.dylib", [(0, struct.pack("<II", 0xFEEDFACF, processor))]


LIBRARIES = {
    "linux-x86-64": elf(62),
    "linux-aarch64": elf(183),
    "darwin-x86-64": mach_o(0x01000007),
    "darwin-aarch64": mach_o(0x0100000C),
    "win32-x86-64": ("seco.dll", [(0, b"MZ")]),
    "arm64-v8a": elf(183),
    "armeabi-v7a": elf(40, ELF32),
    "x86_64": elf(62),
}


def loaded(data):
    """Of each segment of an ELF file that is loaded: offset, address, alignment, and where in the file that is."""
    if data[4] == 2:
        number, first, sizes, places = "<Q", 32, 54, (8, 16, 48)
    else:
        number, first, sizes, places = "<I", 28, 42, (4, 8, 28)
    (start,) = struct.unpack_from(number, data, first)
    size, count = struct.unpack_from("<HH", data, sizes)
    for header in range(start, start + size * count, size):
        if struct.unpack_from("<I", data, header)[0] == 1:
            yield *(struct.unpack_from(number, data, header + place)[0] for place in places), header + places[2]


def library(folder, data):
    """What is wrong with the library of a folder, as far as its header and its names tell."""
    for place, wanted in LIBRARIES[folder][1]:
        if data[place : place + len(wanted)] != wanted:
            yield f"{folder}: not a shared library for it"
            return
    if b"uniffi_seco_fn_method_secoclient_infer" not in data:
        yield f"{folder}: not this project's library"


def pages(data, size=16384):
    """What is wrong where memory has pages of `size` bytes."""
    for offset, address, alignment, _ in loaded(data):
        if alignment < size or (address - offset) % size:
            yield f"a segment at {address:#x} is aligned to {alignment} bytes, which pages of {size} do not allow"


def glibc(data):
    """The newest of glibc's versions that a library asks for, as (2, 34)."""
    return max((2, int(minor)) for minor in re.findall(rb"GLIBC_2\.(\d+)", data))
