"""What mkdocs adds to the pages in docs/: those of the repository's root, and those that are made."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
FROM_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
}
MADE = {"build/docs/routes.md": "routes.md"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are listed as they are there."""
    decisions = sorted(path for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    for entry in config.nav or []:
        if "Decisions" in entry:
            entry["Decisions"] = [f"decisions/{path.name}" for path in decisions]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in FROM_THE_ROOT.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    for source, target in MADE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Links between pages of the repository lead to the same pages here, and all others to the repository."""
    path = page.file.src_uri  # type: ignore[attr-defined]
    source = {target: source for source, target in FROM_THE_ROOT.items()}.get(path, f"docs/{path}")

    def here(link: re.Match[str]) -> str:
        target = (Path("/") / source).parent.joinpath(link[1]).resolve().relative_to("/").as_posix()
        if not (ROOT / target).exists() and not target.startswith("docs/routes"):
            return link[1]  # which mkdocs then complains of
        page_there = FROM_THE_ROOT.get(target) or target.removeprefix("docs/")
        if page_there in {file.src_uri for file in files}:
            up = "../" * path.count("/")
            return up + page_there
        return (
            f"{config.repo_url}/blob/main/{target}"
            if (ROOT / target).is_file()
            else f"{config.repo_url}/tree/main/{target}"
        )

    return LINK.sub(here, markdown)
