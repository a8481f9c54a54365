"""The files of a manifest → one tree: the manifest itself, and one file a tenant where it says ``tenants_from``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shipworthy.manifest.files import Files
from shipworthy.manifest.problem import Problem, quoted
from shipworthy.manifest.tree import FILE_BYTES_MAX, Tree, read_tree

TENANT_FILES_MAX = 10_000
TENANT_BYTES_MAX = 16_777_216
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Text:
    """What was read. ``names`` are the files as problems name them, in reading order; ``files`` has the tenants' folder."""

    tree: Tree
    files: tuple[Path, ...]
    names: tuple[str, ...]


def read(path: Path, source: Files | None = None) -> Text:
    """The manifest at ``path`` with its tenants' files put in place. What cannot be read is a problem in the tree."""
    source = source or Files()
    tree = _file(source, path, str(path))
    files, names = [path.absolute()], [str(path)]
    folder = tree.value.get("tenants_from")
    if isinstance(folder, str) and folder and "\0" not in folder:
        where = path.absolute().parent / Path(folder).expanduser()
        files.append(where)  # a tenant's file that comes or goes changes the folder only
        for tenant in _tenant_files(source, tree, where):
            name = str(Path(folder) / tenant.name)
            names.append(name)
            files.append(tenant)
            _graft(source, tree, tenant, name)
    return Text(tree, tuple(files), tuple(names))


def _file(source: Files, path: Path, name: str, *, empty_ok: bool = False) -> Tree:
    try:
        content = source.content(path, FILE_BYTES_MAX)
    except OSError as reason:
        hint = "shipworthy init writes one" if isinstance(reason, FileNotFoundError) else "check the path and its mode"
        why = reason.strerror or type(reason).__name__
        return Tree(problems=[Problem(name, 1, "", f"cannot be read: {why}", wanted="a readable file", hint=hint)])
    if empty_ok and not content.strip():
        content = b"{}"
    return read_tree(content, name)


def _tenant_files(source: Files, tree: Tree, folder: Path) -> list[Path]:
    where = ("tenants_from",)
    if "tenants" in tree.value:
        tree.report(where, "tenants stand both here and in files", said="", wanted="tenants, or tenants_from")
        return []
    try:
        sizes = source.sizes(folder)
    except OSError as reason:
        why = reason.strerror or type(reason).__name__
        tree.report(where, f"the folder cannot be read: {why}", wanted="a folder of files, one a tenant")
        return []
    found = sorted(entry for entry in sizes if entry.suffix in SUFFIXES and not entry.name.startswith("."))
    size = sum(sizes[entry] for entry in found)
    if not found:
        tree.report(where, "the folder holds no tenant", wanted="files named TENANT.yaml")
    if len(found) > TENANT_FILES_MAX or size > TENANT_BYTES_MAX:
        wanted = f"at most {TENANT_FILES_MAX} files and {TENANT_BYTES_MAX} bytes in all"
        tree.report(
            where, "too many tenants for one deployment", said=f"{len(found)} files, {size} bytes", wanted=wanted
        )
        return []
    return found


def _graft(source: Files, tree: Tree, path: Path, name: str) -> None:
    tenants = tree.value.setdefault("tenants", {})
    assert isinstance(tenants, dict)
    tree.marks.setdefault(("tenants",), tree.mark(("tenants_from",)))
    below = _file(source, path, name, empty_ok=True)
    if path.stem in tenants:
        what = "two files are of this tenant"
        tree.problems.append(Problem(name, 1, f"tenants.{path.stem}", what, quoted(path.name), "one file a tenant"))
        return
    tree.graft(("tenants", path.stem), below)
