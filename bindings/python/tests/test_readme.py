"""The README's notebook, cell by cell, as a notebook runs it: in a loop, where `await` works."""

import ast
import asyncio
import contextlib
import inspect
import io
import re

from cluster import ROOT


def test_the_readmes_cells_print_what_it_says(cluster, monkeypatch):
    readme = (ROOT / "bindings" / "python" / "README.md").read_text()
    cells = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", readme, re.S)
    assert len(cells) >= 7
    (cluster.folder / "server").symlink_to(ROOT / "server")
    monkeypatch.chdir(cluster.folder)

    async def notebook():
        names = {}
        for source, expected in cells:
            printed = io.StringIO()
            code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with contextlib.redirect_stdout(printed):
                value = eval(code, names)
                if inspect.isawaitable(value):
                    await value
            assert printed.getvalue() == expected, source

    asyncio.run(notebook())
