"""Checks every link inside a site: `links.py FOLDER`. The page, and in it the anchor, must be there.

Pages of APIs (the folders below) are what links may lead to; what they say themselves is their makers' to check.
"""

import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

APIS = ("rust", "kotlin", "swift")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src") and value is not None and tag != "base":
                self.links.add(value)


def main(site):
    pages = {}

    def read(path):
        if path not in pages:
            pages[path] = Page(path.read_text(errors="replace"))
        return pages[path]

    checked, dead = 0, []
    for path in sorted(site.rglob("*.html")):
        if path.relative_to(site).parts[0] in APIS:
            continue
        for link in sorted(read(path).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("javascript:"):
                continue
            checked += 1
            target = path
            if parts.path:
                # DocC's pages name places from the site's root.
                place = site / parts.path.lstrip("/") if parts.path.startswith("/") else path.parent / parts.path
                target = Path(os.path.normpath(unquote(str(place))))
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                dead.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target.suffix == ".html" and "/src/" not in str(target):
                anchors = read(target).anchors
                if parts.fragment not in anchors and unquote(parts.fragment) not in anchors:
                    dead.append(f"{path.relative_to(site)}: {link}: no such anchor")
    for line in dead:
        print(f"dead link: {line}")
    print(f"documentation: {checked} links inside the site, {len(dead)} dead")
    return 1 if dead else 0


sys.exit(main(Path(sys.argv[1])))
