# noqa: INP001 - Sphinx reads this file by path; it is in no package
"""How Sphinx builds this documentation: Markdown in, no network, no import of the code."""

project = "yapit"
author = "the yapit authors"
release = "0.1.0"
extensions: list[str] = ["myst_parser"]
exclude_patterns: list[str] = ["_build"]
source_suffix: dict[str, str] = {".md": "markdown"}
myst_heading_anchors = 3  # links such as http.md#errors point to headings as a code host names them
html_theme = "furo"
html_title = "yapit"
html_copy_source = False
