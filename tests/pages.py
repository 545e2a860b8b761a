"""The pages of the documentation as tests read them: sections, tables, examples."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "core/README.md")),
    ROOT / "plugins/hf-generic/README.md",
    *sorted(DOCS.glob("*.md")),
]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


def page(name: str) -> str:
    """Return the text of a page of `docs/`."""
    return (DOCS / name).read_text()


def prose(text: str) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", text)


def sections(text: str) -> dict[str, str]:
    """Return what stands below each second-level heading."""
    _, *parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def tables(text: str) -> list[list[list[str]]]:
    """Return the rows of each table, without its head, as cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", prose(text), re.MULTILINE)
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()[2:]] for block in blocks]


def code(cell: str) -> str:
    """Return the first code span of a cell."""
    found = CODE.search(cell)
    assert found, cell
    return found[1]


def fences(*languages: str) -> Iterator[tuple[Path, str]]:
    """Yield the fenced blocks of these languages, and the page that each is on."""
    for path in PAGES:
        for language, block in FENCE.findall(path.read_text()):
            if language in languages:
                yield path, block


def shell_lines() -> list[tuple[Path, str]]:
    """Return the lines of the shell examples."""
    return [
        (path, line)
        for path, block in fences("", "bash", "console")
        for line in block.replace("\\\n", " ").splitlines()
        if line and not line.startswith("#")
    ]


def curl_lines() -> list[tuple[Path, list[str]]]:
    """Return the words of each `curl` in the shell examples."""
    return [(path, shlex.split(line)) for path, line in shell_lines() if line.startswith("curl ")]


def after(words: list[str], option: str) -> str | None:
    """Return the word that follows an option."""
    return words[words.index(option) + 1] if option in words else None


def sources(path: Path) -> set[str]:
    """Return the repositories of the models for which the examples of a page say nothing else."""
    found = set()
    for language, block in FENCE.findall(path.read_text()):
        document = msgspec.yaml.decode(block.encode()) if language == "yaml" else None
        entries = document.get("models", []) if isinstance(document, dict) else document or []
        found |= {entry["hf_repo_id"] for entry in entries if "hf_repo_id" in entry}
    return found
