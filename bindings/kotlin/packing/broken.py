"""Ways to break a package, each of which check.py has to find."""

import re
import zipfile

from classes import LIBRARIES, loaded
from pack import GROUP, NOTICES, unpacked
from pack import packed as deflated


def packed(entries):
    return deflated(entries, zipfile.ZIP_STORED)


def entry(suffix, name, change):
    """Changes one entry of an archive; without it where `change` gives nothing."""

    def broken(files):
        entries = unpacked(files[suffix])
        data = change(entries.pop(name, b""))
        return files | {suffix: packed(entries | ({name: data} if data is not None else {}))}

    return broken


def dropped(suffix, name):
    return entry(suffix, name, lambda data: None)


def added(suffix, name):
    """With one more class: another one's bytes."""

    def broken(files):
        entries = unpacked(files[suffix])
        return files | {suffix: packed(entries | {name: entries[f"{GROUP}/SecoClient.class"]})}

    return broken


def inner(change):
    """Changes classes.jar within the AAR."""
    return entry(".aar", "classes.jar", lambda data: change({".jar": data})[".jar"])


def text(before, after):
    """Takes one thing for another in a text that has it."""

    def change(data):
        assert re.search(before, data.decode(), re.S), before
        return re.sub(before, after, data.decode(), flags=re.S).encode()

    return change


def pom(before, after):
    change = text(before, after)
    return lambda files: files | {".pom": change(files[".pom"])}


def rules(before, after):
    return entry(".aar", "proguard.txt", text(before, after))


def old(data):
    """The class in the format of another Java."""
    return data[:7] + bytes([data[7] + 4]) + data[8:]


BOTH = {
    "POM: no scm/url": pom(r"<scm>.*</scm>", ""),
    "POM: no licenses/license/url": pom(r"<licenses>.*</licenses>", ""),
    "POM: depends on": pom(r"(<artifactId>jna</artifactId>\s*<version>)[\d.]+", r"\g<1>5.13.0"),
    "sources: no generated": dropped("-sources.jar", f"{GROUP}/seco.kt"),
    "sources: no io/github/seco/SecoClient.kt": dropped("-sources.jar", f"{GROUP}/SecoClient.kt"),
    "documentation: no index.html": dropped("-javadoc.jar", "index.html"),
}
JVM = {
    "jar: io/github/seco/SecoClient is in the sources": dropped(".jar", f"{GROUP}/SecoClient.class"),
    "FakeSecoClient is in no source": added(".jar", f"{GROUP}/testing/FakeSecoClient.class"),
    "has class format 65": entry(".jar", f"{GROUP}/SecoClient.class", old),
    "jar: no LICENSE-MIT": dropped(".jar", f"{NOTICES}/LICENSE-MIT"),
    "THIRD-PARTY.txt does not name ring": dropped(".jar", f"{NOTICES}/THIRD-PARTY.txt"),
}
ANDROID = {
    "AAR: proguard.txt is missing": dropped(".aar", "proguard.txt"),
    "R8: no rule keeps io/github/seco/UniffiLib": rules(r"-keep class \S+\.UniffiLib [^\n]*\n", ""),
    "R8: no rule keeps io/github/seco/RustBuffer": rules(r"-keep class \S+ extends \S+Structure [^\n]*\n", ""),
    "R8: no rule keeps annotations": rules(r"-keepattributes [^\n]*\n", ""),
    "R8: there is no io/github/seco/OldName": rules(r"UniffiLib", "OldName"),
    "and minSdk []": entry(".aar", "AndroidManifest.xml", text(r"<uses-sdk[^>]*>", "")),
    "AAR: io/github/seco/LogcatLog is in the sources": inner(dropped(".jar", f"{GROUP}/LogcatLog.class")),
    "AAR: android/util/Log is in no source": inner(added(".jar", "android/util/Log.class")),
    "AAR: THIRD-PARTY.txt does not name": entry(".aar", f"{NOTICES}/THIRD-PARTY.txt", lambda data: b""),
    "AAR: jni/mips/libseco.so is not": entry(".aar", "jni/mips/libseco.so", lambda data: data),
}


def small_pages(data):
    """The library with what is loaded first aligned as for pages of 4 KB."""
    *_, place = next(loaded(data))
    return data[:place] + (4096).to_bytes(4, "little") + data[place + 4 :]


def ways(kind, files, folders):
    yield from BOTH.items()
    yield from (JVM if kind == "jvm" else ANDROID).items()
    if kind == "jvm":
        libraries = {name: f"{name}/{LIBRARIES[name][0]}" for name in folders}
        for name, path in libraries.items():
            yield f"jar: {path} is missing", dropped(".jar", path)
        if len(libraries) > 1:
            first, second = list(libraries)[:2]
            other = unpacked(files[".jar"])[libraries[first]]
            yield f"jar: {second}: not a shared library for it", entry(".jar", libraries[second], lambda data: other)
    for abi in folders if kind == "android" else []:
        yield f"AAR: {abi}: a segment", entry(".aar", f"jni/{abi}/libseco.so", small_pages)


def unseen_files(folder, kind, files):
    """The same about files that are missing or another's."""
    for name, data in files.items():
        if not list(folder(kind, {other: files[other] for other in files if other != name})):
            yield f"broken, and not found: without {name}"
        if not list(folder(kind, files | {name: data + b"x"})):
            yield f"broken, and not found: {name} has more in it"


def unseen(problems, kind, files, folders):
    """Sentences about what was broken, where `problems` does not find it."""
    seen = 0
    for words, broken in ways(kind, files, folders):
        found = problems(kind, broken(files), folders)
        if any(words in problem for problem in found):
            seen += 1
        else:
            yield f"broken, and not found: {words} (found: {found})"
    print(f"seco-{kind}: good, and {seen} ways to break it are found")
