"""Puts all Markdown of the repository where Sphinx reads it: `stage.py ROOT SOURCE API`.

Every page keeps its path, so that links between pages stay as they are. Files that pages link to and that are no pages
come along. Dead links are left to Sphinx, which fails on them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from markdown_it import MarkdownIt

root, source, api = map(Path, sys.argv[1:])


def links(text):
    """Targets of links and images outside code."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or []:
            for name in ("href", "src"):
                if target := token.attrGet(name):
                    yield target


def place(page, target):
    """The path in the repository that a link leads to; None if it leads elsewhere."""
    path = target.split("#")[0]
    if not path or "://" in target or target.startswith("mailto:"):
        return None
    parts = []
    for part in (PurePosixPath(page).parent / path).parts:
        if part == "..":
            if not parts:
                sys.exit(f"{page}: {target} leads out of the repository")
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def main():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    tracked = [path for path in tracked if (root / path).exists()]
    pages = [path for path in tracked if path.endswith(".md") and not path.startswith("sdk/docs/site/")]
    files = set()
    for page in pages:
        text = (root / page).read_text()
        for target in links(text):
            path = place(page, target)
            if path in tracked and not path.endswith(".md"):
                files.add(path)
        # Rustdoc's words for examples that are not run.
        text = re.sub(r"^```rust,\w+$", "```rust", text, flags=re.M)
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        (source / page).write_text(text)
    for path in files:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, source / path)
    for path in (root / "sdk/docs/site").glob("*.md"):
        shutil.copy(path, source / path.name)
    names = {
        "rust": ("Rust", ["rust/seco_sdk/index.html", "rust/seco_core/index.html"]),
        "kotlin": ("Kotlin", ["kotlin/index.html"]),
        "swift": ("Swift", ["swift/documentation/seco/index.html"]),
    }
    with (source / "index.md").open("a") as index:
        for folder, (language, places) in names.items():
            if (api / folder).exists():
                made = ", ".join(f'<a href="{path}">{path.split("/")[-2].replace("_", "-")}</a>' for path in places)
                index.write(f"- {language}: {made}\n")
        index.write("- Python: [seco](python-api.md)\n")


main()
