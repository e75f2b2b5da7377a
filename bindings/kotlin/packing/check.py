"""Says what is wrong with packages that pack.py made: each of these functions gives sentences.

    check.py REPOSITORY jvm FOLDER...       FOLDERs of libraries that have to be in it, as JNA calls them
    check.py REPOSITORY android [ABI...]    the same for Android
    check.py pages LIBRARY                  whether Android can load it where pages have 16 KB

With --broken before these: copies of the package are broken, and each of those has to be found (broken.py).
"""

import hashlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import broken as ways
from classes import LIBRARIES, Class, glibc, library, pages
from pack import CHECKSUMS, GROUP, MANIFEST, NOTICES, POM, kotlin, root, testing, tree, unpacked, version

# A type that a Kotlin file declares by itself, not within another.
DECLARED = re.compile(
    r"^((?:(?:public|internal|private|data|sealed|enum|open|abstract|annotation|fun|value) )*)"
    r"(?:class|interface|object) `?(\w+)",
    re.M,
)
SUFFIXES = {
    "jvm": [".pom", ".jar", "-testing.jar", "-sources.jar", "-javadoc.jar"],
    "android": [".pom", ".aar", "-sources.jar", "-javadoc.jar"],
}


def folder(kind, files):
    """What a repository has of a package, {name: bytes}: files, and sums that are right."""
    stem = f"seco-{kind}-{version()}"
    wanted = {stem + suffix for suffix in SUFFIXES[kind]}
    wanted |= {f"{name}.{sum}" for name in wanted for sum in CHECKSUMS}
    for name in sorted(wanted ^ set(files)):
        yield f"{name} is {'missing' if name in wanted else 'not for publication'}"
    for name in sorted(set(files) & wanted):
        data, _, sum = name.rpartition(".")
        if sum in CHECKSUMS and hashlib.new(sum, files.get(data, b"")).hexdigest() != files[name].decode():
            yield f"{name} is another file's"


def described(kind, pom):
    """The POM: what Maven Central asks for, and dependencies that the Gradle module has too."""
    project = ElementTree.fromstring(pom)

    def find(path, element=project):
        return element.findtext("/".join(f"{{{POM}}}{name}" for name in path.split("/")))

    for path in ["name", "description", "url", "licenses/license/name", "licenses/license/url", "developers/developer/name",
                 "scm/connection", "scm/developerConnection", "scm/url"]:
        if not (find(path) or "").strip():
            yield f"POM: no {path}"
    named = [find(name) for name in ["groupId", "artifactId", "version", "packaging"]]
    if named != ["io.github.seco", f"seco-{kind}", version(), "aar" if kind == "android" else None]:
        yield f"POM: it calls itself {named}"
    cargo = re.search(r'\[workspace\.package\]\nversion = "(.+)"', (root / "Cargo.toml").read_text())[1]
    if version() != cargo:
        yield f"POM: version {version()}, where the library has {cargo}"
    if b"${" in pom:
        yield "POM: something is left for a build to fill in"
    found = {}
    for dependency in project.iter(f"{{{POM}}}dependency"):
        name, number, scope, form = (find(each, dependency) for each in ["artifactId", "version", "scope", "type"])
        found[name.removesuffix("-jvm")] = f"{number}{'@aar' if form == 'aar' else ''}"
        if scope not in (None, "compile", "runtime"):
            yield f"POM: {name} is for {scope}"
    gradle = (kotlin / "android/build.gradle.kts").read_text()
    wanted = dict(re.findall(r'"[\w.]+:([\w-]+):([\d.]+(?:@aar)?)"', gradle))
    if kind == "jvm":
        wanted = {name: number.removesuffix("@aar") for name, number in wanted.items()}
    # Kotlin's Gradle plugin brings its library by itself.
    if {**found, "kotlin-stdlib": None} != {**wanted, "kotlin-stdlib": None} or "kotlin-stdlib" not in found:
        yield f"POM: depends on {found}, where build.gradle.kts has {wanted}"


def licensed(what, entries, linked=False):
    for name in ["LICENSE-APACHE", "LICENSE-MIT"]:
        if entries.get(f"{NOTICES}/{name}") != (root / name).read_bytes():
            yield f"{what}: no {name}"
    if linked:
        text = entries.get(f"{NOTICES}/THIRD-PARTY.txt", b"").decode()
        for name in ["Rust's standard library", "ring ", "rustls ", "tokio ", "uniffi_core ", "Mozilla Public License"]:
            if name not in text:
                yield f"{what}: THIRD-PARTY.txt does not name {name.strip()}"


def types(sources):
    """The types that sources declare, {name of its class: whether it is for users}."""
    found = {}
    for name, data in sources.items():
        text = data.decode()
        for declared in DECLARED.finditer(text):
            before = text[: declared.start()]
            start = before.rfind("/**")
            comment, _, between = before[start:].partition("*/")
            # What is generated says of parts of its own that Dokka leaves them out.
            hidden = start >= 0 and "@suppress" in comment and re.fullmatch(r"\s*(@.*\s*)*", between)
            inner = {"internal", "private"} & set(declared[1].split())
            found[f"{Path(name).parent.as_posix()}/{declared[2]}"] = not inner and not hidden
    return found


def compiled(what, entries, declared, sources):
    """Classes: of Java 17, each from a type or a file of the sources, and all of those types."""
    found = {name.removesuffix(".class"): Class(data) for name, data in entries.items() if name.endswith(".class")}
    # Kotlin's name for what a file has outside of types.
    files = {f"{Path(name).parent.as_posix()}/{Path(name).stem[0].upper()}{Path(name).stem[1:]}Kt" for name in sources}
    for name, each in found.items():
        if each.major != 61 or each.name != name:
            yield f"{what}: {name} has class format {each.major} and the name {each.name}"
    for name in sorted({name.split("$")[0] for name in found} - set(declared) - files):
        yield f"{what}: {name} is in no source"
    for name in sorted(set(declared) - set(found)):
        yield f"{what}: {name} is in the sources, and not here"


def documented(pages, declared):
    """A page for each public type, under Dokka's name."""
    if "index.html" not in pages:
        yield "documentation: no index.html"
    for name, public in declared.items():
        page = re.sub(r"[A-Z]", lambda letter: "-" + letter[0].lower(), name.rpartition("/")[2])
        if public and not any(path.endswith(f"/{page}/index.html") for path in pages):
            yield f"documentation: no page of {name}"


def archives(kind, files, folders):
    """Sources and documentation, and whether the rest is what they say."""
    sources = {name: data for name, data in unpacked(files["-sources.jar"]).items() if name.endswith(".kt")}
    for name, data in tree(kotlin / "src/main/kotlin").items():
        if sources.get(name) != data:
            yield f"sources: no {name}, or another one"
    if f"{GROUP}/seco.kt" not in sources:
        yield "sources: no generated ones"
    pages = unpacked(files["-javadoc.jar"])
    yield from licensed("sources", unpacked(files["-sources.jar"]))
    yield from licensed("documentation", pages)
    declared = types(sources)
    yield from documented(pages, {name: public for name, public in declared.items() if not testing(name)})
    yield from {"jvm": jvm, "android": android}[kind](files, folders, sources, declared)


def jvm(files, folders, sources, declared):
    jar, fake = unpacked(files[".jar"]), unpacked(files["-testing.jar"])
    for what, entries, inside, linked in [("jar", jar, False, True), ("testing jar", fake, True, False)]:
        yield from licensed(what, entries, linked)
        if not entries.get(MANIFEST, b"").startswith(b"Manifest-Version: 1.0\r\n"):
            yield f"{what}: no manifest"
        yield from compiled(what, entries, {name for name in declared if testing(name) == inside},
                            {name for name in sources if testing(name) == inside})
    if "META-INF/seco-jvm.kotlin_module" not in jar:
        yield "jar: Kotlin's table of what is in no class is missing"
    wanted = {f"{name}/{LIBRARIES[name][0]}" for name in folders}
    found = {name for name in jar if not name.startswith(("META-INF/", f"{GROUP}/"))}
    for name in sorted(wanted ^ found):
        yield f"jar: {name} is {'missing' if name in wanted else 'not for publication'}"
    promised = re.search(r"glibc (\d+)\.(\d+)", (kotlin / "README.md").read_text())
    promised = (int(promised[1]), int(promised[2]))
    for name in sorted(wanted & found):
        system = name.split("/")[0]
        problems = [f"jar: {problem}" for problem in library(system, jar[name])]
        yield from problems
        if system.startswith("linux") and not problems and glibc(jar[name]) > promised:
            yield f"jar: {name} needs glibc {glibc(jar[name])}, where README.md says {promised}"


def android(files, abis, sources, declared):
    aar = unpacked(files[".aar"])
    fixed = ["AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt",
             "META-INF/com/android/build/gradle/aar-metadata.properties",
             *(f"{NOTICES}/{name}" for name in ["LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY.txt"])]
    wanted = {*fixed, *(f"jni/{abi}/libseco.so" for abi in abis)}
    for name in sorted(wanted ^ set(aar)):
        yield f"AAR: {name} is {'missing' if name in wanted else 'not for publication'}"
    if not set(fixed) <= set(aar):
        return
    yield from licensed("AAR", aar, linked=True)
    manifest = ElementTree.fromstring(aar["AndroidManifest.xml"])
    least = [each.get("{http://schemas.android.com/apk/res/android}minSdkVersion") for each in manifest]
    promised = re.search(r"\| Android, by `minSdk` \| (\d+)", (root / "sdk/docs/versions.md").read_text())[1]
    if (manifest.tag, manifest.get("package"), least) != ("manifest", "io.github.seco", [promised]):
        yield f"AAR: the manifest names {manifest.get('package')} and minSdk {least}"
    metadata = dict(line.split("=") for line in aar[fixed[4]].decode().splitlines())
    told = [metadata.get(key) for key in ["aarFormatVersion", "aarMetadataVersion", "minCompileSdk"]]
    if told[:2] != ["1.0", "1.0"] or told[2] is None:
        yield f"AAR: its metadata is {metadata}"
    classes = unpacked(aar["classes.jar"])
    yield from compiled("AAR", classes, declared, sources)
    if f"{GROUP}/LogcatLog" not in declared:
        yield "sources: no LogcatLog"
    for name in sorted(set(classes) - {"META-INF/seco-android.kotlin_module"}):
        if not re.fullmatch(GROUP + r"/[^/]+\.class", name):
            yield f"AAR: {name} does not belong into classes.jar"
    yield from kept(aar["proguard.txt"].decode(), [Class(data) for name, data in classes.items() if name.endswith(".class")])
    for name in sorted(name for name in wanted & set(aar) if name.startswith("jni/")):
        abi = name.split("/")[1]
        problems = list(library(abi, aar[name])) or list(pages(aar[name]))
        yield from (f"AAR: {abi}: {problem}" for problem in problems)


def kept(rules, classes):
    """R8's rules: what JNA finds by its name keeps it, and no rule is about something that is no longer there."""
    lines = [line for line in rules.splitlines() if line and not line.startswith("#")]
    above = {each.name: each.extends for each in classes}

    def ancestors(name):
        return {name, *(other for each in above.get(name, []) for other in ancestors(each))}

    names = {line.split()[2].replace(".", "/") for line in lines if re.fullmatch(r"-keep class [\w.]+ \{ \*; \}", line)}
    children = r"-keep class io\.github\.seco\.\*\* (?:implements|extends) ([\w.]+) \{ \*; \}"
    bases = {found[1].replace(".", "/"): 0 for found in (re.fullmatch(children, line) for line in lines) if found}
    for each in classes:
        met = {base for base in bases if base in ancestors(each.name)}
        for base in met:
            bases[base] += 1
        # JNA binds native methods to the library's functions, and reads and calls the members of its own types' children.
        if (each.native or any(name.startswith("com/sun/jna/") for name in each.extends)) and not met | (names & {each.name}):
            yield f"R8: no rule keeps {each.name}"
    for name in names - set(above):
        yield f"R8: there is no {name}"
    for base in [base for base, count in bases.items() if not count]:
        yield f"R8: there is no child of {base}"
    ordered = any("Lcom/sun/jna/Structure$FieldOrder;" in each.strings for each in classes)
    if ordered and "-keepattributes RuntimeVisibleAnnotations" not in lines:
        yield "R8: no rule keeps annotations, by which JNA knows the order of fields"
    for line in ["-keep class com.sun.jna.** { *; }", "-dontwarn java.awt.**"]:
        if line not in lines:
            yield f"R8: no {line}"


def problems(kind, files, folders):
    """What is wrong with a package of these files, {what follows its name and version: bytes}."""
    return [*described(kind, files[".pom"]), *archives(kind, files, folders)]


def main(arguments):
    broken = arguments[:1] == ["--broken"]
    if broken:
        arguments = arguments[1:]
    if arguments[:1] == ["pages"] and len(arguments) == 2:
        data = Path(arguments[1]).read_bytes()
        found = list(pages(data))
        if broken and not found and not list(pages(ways.small_pages(data))):
            found = ["a library for pages of 4 KB was not found"]
    elif len(arguments) > 1 and arguments[1] in SUFFIXES:
        kind = arguments[1]
        place = Path(arguments[0]) / GROUP / f"seco-{kind}" / version()
        stored = tree(place)
        found = list(folder(kind, stored))
        if not found:
            files = {suffix: stored[f"seco-{kind}-{version()}{suffix}"] for suffix in SUFFIXES[kind]}
            found = problems(kind, files, arguments[2:])
            if broken and not found:
                found = [*ways.unseen_files(folder, kind, stored), *ways.unseen(problems, kind, files, arguments[2:])]
    else:
        sys.exit(__doc__)
    for problem in found:
        print(problem)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
