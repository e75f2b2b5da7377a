"""Packs what `../package` built as it is published, in the layout of Maven's repositories:

    pack.py TARGET REPOSITORY jvm NOTICES DOCUMENTATION
    pack.py TARGET REPOSITORY android NOTICES DOCUMENTATION

TARGET is Cargo's target folder, NOTICES the file with others' licences, DOCUMENTATION the folder of Dokka's pages. The
package's folder below REPOSITORY is made anew. From the same files come the same bytes: entries are sorted and have one
time.
"""

import hashlib
import io
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

kotlin = Path(__file__).resolve().parent.parent
root = kotlin.parent.parent
POM = "http://maven.apache.org/POM/4.0.0"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
GROUP = "io/github/seco"
MANIFEST = "META-INF/MANIFEST.MF"
# A folder of our own: an application that is made of many libraries has many such files.
NOTICES = "META-INF/seco"
ABIS = ["arm64-v8a", "armeabi-v7a", "x86_64"]
CHECKSUMS = ["md5", "sha1", "sha256", "sha512"]


def packed(entries, method=zipfile.ZIP_DEFLATED):
    """A zip file of {name: bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        # A jar's manifest comes first.
        for name in sorted(entries, key=lambda name: (name != MANIFEST, name)):
            entry = zipfile.ZipInfo(name, (1980, 2, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            file.writestr(entry, entries[name], method)
    return out.getvalue()


def unpacked(data):
    """The files in a zip file, {name: bytes}."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("/")}


def tree(folder):
    """All files below a folder, {path below it: bytes}."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def put(folder, name, data):
    """Writes a file and its checksums, as Maven's repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    for kind in CHECKSUMS:
        (folder / f"{name}.{kind}").write_text(hashlib.new(kind, data).hexdigest())


def version():
    return ElementTree.parse(kotlin / "pom.xml").findtext(f"{{{POM}}}version")


def pom(artifact):
    """The package's POM: `pom.xml` without what builds and tests need."""
    ElementTree.register_namespace("", POM)
    ElementTree.register_namespace("xsi", XSI)
    project = ElementTree.parse(kotlin / "pom.xml").getroot()

    def tag(name):
        return f"{{{POM}}}{name}"

    known = {each.tag.split("}")[1]: each.text for each in project.find(tag("properties"))}
    for name in ["properties", "build", "profiles"]:
        project.remove(project.find(tag(name)))
    dependencies = project.find(tag("dependencies"))
    for dependency in list(dependencies):
        if dependency.findtext(tag("scope")) == "test":
            dependencies.remove(dependency)
    if artifact == "seco-android":
        project.find(tag("artifactId")).text = artifact
        project.find(tag("name")).text = "SECO for Android"
        packaging = ElementTree.Element(tag("packaging"))
        packaging.text = "aar"
        project.insert(list(project).index(project.find(tag("version"))) + 1, packaging)
        for dependency in dependencies:
            # JNA's own library for Android is in that one.
            if dependency.findtext(tag("artifactId")) == "jna":
                ElementTree.SubElement(dependency, tag("type")).text = "aar"
    for each in project.iter():
        each.text = re.sub(r"\$\{([\w.]+)\}", lambda name: known[name[1]], each.text or "")
    ElementTree.indent(project)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(project) + b"\n"


def licences(notices):
    """The project's licences, and with `notices` those of what its library is linked from."""
    files = {f"{NOTICES}/{name}": (root / name).read_bytes() for name in ["LICENSE-APACHE", "LICENSE-MIT"]}
    return files | ({f"{NOTICES}/THIRD-PARTY.txt": notices} if notices else {})


def jar(entries, notices=b""):
    manifest = f"Manifest-Version: 1.0\r\nImplementation-Title: SECO\r\nImplementation-Version: {version()}\r\n\r\n"
    return packed(entries | licences(notices) | {MANIFEST: manifest.encode()})


def compiled(classes):
    """Of compiled files those that are published: Kotlin's table of a module is one."""
    return {name: data for name, data in classes.items() if name.endswith((".class", ".kotlin_module"))}


def testing(name):
    return name.startswith(f"{GROUP}/testing/")


def sources(target, *folders):
    found = tree(target / "kotlin/generated")
    for folder in folders:
        found |= tree(kotlin / folder)
    return found


def jvm(target, notices, documentation):
    """The JVM package's files, {what follows its name and version: bytes}."""
    # Maven's own jars, made in one step with what was tested. The libraries are in none of them: see `package`.
    built = target / "kotlin/maven"
    classes = compiled(unpacked((built / f"seco-jvm-{version()}.jar").read_bytes()))
    fake = compiled(unpacked((built / f"seco-jvm-{version()}-testing.jar").read_bytes()))
    return {
        ".pom": pom("seco-jvm"),
        ".jar": jar(classes | tree(target / "kotlin/native"), notices),
        "-testing.jar": jar(fake),
        "-sources.jar": jar(sources(target, "src/main/kotlin", "src/testing/kotlin")),
        "-javadoc.jar": jar(tree(documentation)),
    }


def android(target, notices, documentation):
    """The Android package's files, {what follows its name and version: bytes}."""
    gradle = (kotlin / "android/build.gradle.kts").read_text()
    name = re.search(r'namespace = "(.+)"', gradle)[1]
    least = re.search(r"minSdk = (\d+)", gradle)[1]
    manifest = ElementTree.parse(kotlin / "android/src/main/AndroidManifest.xml").getroot()
    # What Android's own build puts in.
    space = "http://schemas.android.com/apk/res/android"
    ElementTree.register_namespace("android", space)
    manifest.set("package", name)
    ElementTree.SubElement(manifest, "uses-sdk", {f"{{{space}}}minSdkVersion": least})
    ElementTree.indent(manifest)
    metadata = ["aarFormatVersion=1.0", "aarMetadataVersion=1.0", "minCompileSdk=1", "minCompileSdkExtension=0",
                "minAndroidGradlePluginVersion=1.0.0", "coreLibraryDesugaringEnabled=false"]
    classes = compiled(tree(target / "kotlin/android/classes"))
    libraries = {f"jni/{path}": data for path, data in tree(target / "android/jniLibs").items()}
    entries = {
        "AndroidManifest.xml": b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(manifest) + b"\n",
        "classes.jar": packed({name: data for name, data in classes.items() if not testing(name)}),
        # It has no resources, and so none with a number.
        "R.txt": b"",
        "proguard.txt": (kotlin / "android/consumer-rules.pro").read_bytes(),
        "META-INF/com/android/build/gradle/aar-metadata.properties": "\n".join(metadata + [""]).encode(),
    }
    return {
        ".pom": pom("seco-android"),
        ".aar": packed(entries | libraries | licences(notices)),
        "-sources.jar": jar(sources(target, "src/main/kotlin", "android/src/main/kotlin")),
        "-javadoc.jar": jar(tree(documentation)),
    }


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    target, repository, kind, notices, documentation = sys.argv[1:]
    make = {"jvm": jvm, "android": android}[kind]
    files = make(Path(target), Path(notices).read_bytes(), Path(documentation))
    folder = Path(repository) / GROUP / f"seco-{kind}" / version()
    shutil.rmtree(folder.parent, ignore_errors=True)
    for name, data in files.items():
        put(folder, f"seco-{kind}-{version()}{name}", data)


if __name__ == "__main__":
    main()
