"""What is installed: packages that fit together, plugins that work, models that are served."""

from collections.abc import Iterator
from importlib import metadata

from yapit import log
from yapit.cli.doctor.findings import Finding
from yapit.errors import StartupError
from yapit.plugins import GROUP, Plugins
from yapit.provisioning.starting import check_weights
from yapit.settings import LogSettings, Settings, model_files


def packages() -> Iterator[Finding]:
    """Say whether yapit, its plugins, and all that they need fit together."""
    owners = {entry.dist.name for entry in metadata.entry_points(group=GROUP) if entry.dist is not None}
    seen, found = _conflicts(["yapit", *sorted(owners)])
    for conflict in found:
        yield Finding("packages", "problem", conflict, "try: pip install what is named, or the plugin with --isolated")
    if not found:
        yield Finding("packages", "ok", f"{seen} packages fit together")


def plugins(settings: Settings) -> Iterator[Finding]:
    """Say which plugins work, and what is wrong with the models files."""
    # What plugins log is said here.
    log.configure(LogSettings(level="error"))
    loaded = Plugins.installed(settings)
    listed = loaded.listing()
    yield Finding("plugins", "ok", ", ".join(f"{each.name} {each.version}" for each in listed if each.error is None))
    for each in listed:
        if each.error is not None:
            mend = f"try: yapit plugins -v, or yapit plugins uninstall {each.name}"
            yield Finding("plugins", "problem", f"'{each.name}' does not work: {each.error}", mend)
    yield _models(settings, loaded)


def _models(settings: Settings, loaded: Plugins) -> Finding:
    try:
        catalog = loaded.catalog(settings)
        files = [path.name for path in model_files(settings)]
        check_weights(settings, loaded, catalog)
    except StartupError as error:
        return Finding("models", "problem", error.message)
    unserved = [model for model in catalog if not loaded.serves(model)]
    read = f", with {', '.join(files)}" if files else ""
    if unserved:
        mend = loaded.unserved(unserved[0]).partition("; ")[2]
        message = f"{len(unserved)} of {len(catalog)} are run by no plugin, such as '{unserved[0].id}'{read}"
        return Finding("models", "warning", message, mend)
    return Finding("models", "ok", f"{len(catalog)} are served{read}")


def _conflicts(roots: list[str]) -> tuple[int, list[str]]:
    """Return how many distributions the roots need, themselves counted, and what of that is missing or unfit."""
    # It comes with huggingface_hub.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    left, seen, found = [*roots], set[str](), list[str]()
    while left:
        name = canonicalize_name(left.pop())
        if name in seen:
            continue
        seen.add(name)
        for text in metadata.requires(name) or ():
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            try:
                version = metadata.version(needed.name)
            except metadata.PackageNotFoundError:
                found.append(f"{name} needs {needed.name}, which is not installed")
                continue
            if not needed.specifier.contains(version, prereleases=True):
                found.append(f"{name} needs {needed.name}{needed.specifier}, and {version} is installed")
            left.append(needed.name)
    return len(seen), found
