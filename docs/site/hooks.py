"""What mkdocs adds to the pages in docs/: those of the repository's root, and those that are made."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FROM_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
}
GENERATED = {**FROM_THE_ROOT, "build/docs/routes.md": "routes.md"}
SOURCES = {target: source for source, target in FROM_THE_ROOT.items()}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are listed as they are there."""
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    for section in config.nav or []:
        for entry in next(iter(section.values())):
            if "Decisions" in entry:
                entry["Decisions"] = [f"decisions/{path.name}" for path in decisions]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in GENERATED.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between pages of the repository lead to the same pages here, and all others to the repository."""
    path = page.file.src_uri
    source = Path("/", SOURCES.get(path, f"docs/{path}"))
    pages = {file.src_uri for file in files}

    def here(link: re.Match[str]) -> str:
        target = source.parent.joinpath(link[1]).resolve().relative_to("/").as_posix()
        page_there = FROM_THE_ROOT.get(target) or target.removeprefix("docs/")
        if page_there in pages:
            return "../" * path.count("/") + page_there
        if not (ROOT / target).exists():
            return link[1]  # which mkdocs then complains of
        kind = "blob" if (ROOT / target).is_file() else "tree"
        return f"{config.repo_url}/{kind}/main/{target}"

    return LINK.sub(here, markdown)
