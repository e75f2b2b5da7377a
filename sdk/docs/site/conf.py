"""Sphinx for the documentation's site; sdk/docs/build runs it."""

import os
import sys

project = "SECO"
html_title = "SECO"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.githubpages"]
source_suffix = {".md": "markdown"}
html_theme = "alabaster"
html_theme_options = {"page_width": "68rem", "sidebar_width": "16rem", "show_powered_by": False}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
html_copy_source = False
html_show_copyright = False
# Anchors as the repository's pages have them.
myst_heading_anchors = 4
# The Python package without its library, which takes minutes to build and has no part in what is documented.
sys.path.insert(0, os.environ["SECO_PYTHON"])
autodoc_mock_imports = ["seco._native.seco"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Not what NumPy makes of them.
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "_input.Deployment": "Deployment"}
