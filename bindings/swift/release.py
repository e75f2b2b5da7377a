"""Says what is wrong with what `release --test` made: `release.py FOLDER URL CHECKSUM ROOT`, with Swift's descriptions of
the package in FOLDER. Afterwards it is broken in some ways, each of which has to be found."""

import json
import plistlib
import sys
import zipfile
from pathlib import Path

folder, url, checksum, root = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
LICENCES = ["LICENSE-APACHE", "LICENSE-MIT"]


def files(place):
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def problems(archive, package, apple, linux, described):
    """Of the archive's and the package's files, {name: bytes}, and of Swift's descriptions of the package."""
    for name in LICENCES:
        for what, found in [("archive", archive), ("package", package)]:
            if found.get(name) != (root / name).read_bytes():
                yield f"{what}: no {name}"
    if b"ring " not in archive.get("THIRD-PARTY.txt", b""):
        yield "archive: no licences of others"
    if "SecoFFI.xcframework/Info.plist" not in archive:
        yield "archive: no SecoFFI.xcframework"
    targets = {target["name"]: target for target in apple["targets"]}
    binary = targets.get("SecoFFI", {})
    if [binary.get(key) for key in ["type", "url", "checksum"]] != ["binary", url, checksum]:
        yield f"package: its library is {binary}"
    if {target["name"]: target["type"] for target in linux["targets"]}.get("SecoFFI") != "system":
        yield "package: on Linux the library is not the system's"
    for side in [apple, linux]:
        if [product["name"] for product in side["products"]] != ["Seco", "SecoTesting"]:
            yield f"package: its products are {side['products']}"
    if [(each["platformName"], each["version"]) for each in apple["platforms"]] != [("ios", "15.0"), ("macos", "12.0")]:
        yield f"package: its systems are {apple['platforms']}"
    for name in ["Sources/Seco/Seco.swift", "Sources/Seco/SecoClient+Swift.swift", "Sources/SecoTesting/FakeSecoClient.swift",
                 "Sources/SecoFFI/SecoFFI.h", "Sources/SecoFFI/module.modulemap"]:
        if not package.get(name):
            yield f"package: no {name}"
    privacy = package.get("Sources/Seco/PrivacyInfo.xcprivacy")
    resources = [each["path"] for each in targets.get("Seco", {}).get("resources", [])]
    if resources != ["PrivacyInfo.xcprivacy"] or not privacy:
        yield "package: no privacy manifest"
    else:
        told = plistlib.loads(privacy)
        nothing = {"NSPrivacyTracking": False, "NSPrivacyTrackingDomains": [], "NSPrivacyCollectedDataTypes": [],
                   "NSPrivacyAccessedAPITypes": []}
        if told != nothing:
            yield f"package: the privacy manifest says {told}"
    # Swift found the sources.
    sources = {target["name"]: target.get("sources", []) for target in described["targets"]}
    if "Seco.swift" not in sources.get("Seco", []) or "FakeSecoClient.swift" not in sources.get("SecoTesting", []):
        yield f"package: Swift finds {sources}"


def main():
    with zipfile.ZipFile(folder / "SecoFFI.xcframework.zip") as file:
        archive = {name: file.read(name) for name in file.namelist()}
    package = files(folder / "swift")
    apple, linux, described = (json.loads((folder / f"{name}.json").read_text()) for name in ["apple", "swift", "described"])
    found = list(problems(archive, package, apple, linux, described))
    told = (folder / "checksum").read_text().strip()
    if told != checksum:
        found.append(f"the checksum is {told} for Swift, and {checksum} here")

    def without(kept, name):
        return {key: value for key, value in kept.items() if key != name}

    def other(target, **change):
        return apple | {"targets": [each | change if each["name"] == target else each for each in apple["targets"]]}

    broken = {
        "archive: no LICENSE-MIT": (without(archive, "LICENSE-MIT"), package, apple),
        "archive: no licences of others": (without(archive, "THIRD-PARTY.txt"), package, apple),
        "package: its library is": (archive, package, other("SecoFFI", checksum="0" * 64)),
        "package: no privacy manifest": (archive, without(package, "Sources/Seco/PrivacyInfo.xcprivacy"), apple),
        "package: no privacy": (archive, package, other("Seco", resources=[])),
        "package: no Sources/Seco/Seco.swift": (archive, without(package, "Sources/Seco/Seco.swift"), apple),
    }
    for words, (*changed, side) in broken.items():
        if not any(words in problem for problem in problems(*changed, side, linux, described)):
            found.append(f"broken, and not found: {words}")
    for problem in found:
        print(f"Swift's release: {problem}")
    if found:
        sys.exit(1)
    print(f"Swift's release: Swift reads the package; of {len(broken)} ways to break it each is found")


main()
