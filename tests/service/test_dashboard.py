"""The pages are whole, ask nobody but their own server, and can be read by everybody."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

import engine

FOLDER = Path(engine.__file__).parent / "service" / "dashboard"
PAGES = ("index.html", "shop.html")
VENDOR = "static/vendor/"
LINES_MAX = 300
"""A dialog of a page or the styles of a phone stay findable; what grows beyond is split."""

AA_TEXT = 4.5
AA_SHAPE = 3.0
"""Contrast ratios of WCAG 2.2, level AA: 1.4.3 for text, 1.4.11 for shapes that carry meaning."""

TEXT_PAIRS = (
    *product(("text", "muted", "accent"), ("bg", "surface")),
    ("text", "sunken"),
    ("muted", "sunken"),  # a disabled button
    ("on-accent", "accent"),
    *product(("text", "muted"), ("neutral-bg",)),
    *((tone, f"{tone}-bg") for tone in ("good", "warn", "bad")),
    *(("text", f"{tone}-bg") for tone in ("good", "warn", "bad")),
    *((tone, ground) for tone, ground in product(("good", "bad"), ("surface",))),
)
SHAPE_PAIRS = (
    *product(("left", "held", "sold", "line-1", "line-2", "line-3"), ("surface",)),
    ("field-border", "surface"),
    ("accent", "bg"),  # the focus ring
)


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the text inside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed((FOLDER / page).read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data.strip())

    def values(self, *names: str) -> list[str]:
        return [value for _, attrs in self.tags for name in names if (value := attrs.get(name))]


def own_files(suffix: str) -> dict[str, str]:
    """Text by path of our own files; what others wrote is not ours to hold to our rules."""
    found = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(FOLDER.rglob(f"*{suffix}"))
    }
    return {path: text for path, text in found.items() if not path.startswith(VENDOR)}


def colours(scheme: str) -> dict[str, str]:
    """The colour variables of base.css; dark ones replace the light ones of the same name."""
    css = own_files("base.css")["static/base.css"]
    light, dark = css.split("@media (prefers-color-scheme: dark)", 1)
    blocks = [light] if scheme == "light" else [light, dark[: dark.index("\n}\n")]]
    return {
        name: value
        for block in blocks
        for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)
    }


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = [link for link in Tags(page).values("src", "href") if not link.startswith("#")]
    assert named
    assert all(link.startswith("/static/") for link in named), named
    assert [link for link in named if not (FOLDER / link.removeprefix("/")).is_file()] == []


def test_every_import_of_a_module_is_there_and_exports_what_is_taken() -> None:
    scripts = own_files(".js")
    imports = [
        (path, names, target)
        for path, text in scripts.items()
        for names, target in re.findall(r'^import \{([^}]*)\} from "([^"]+)";', text, re.MULTILINE)
    ]
    assert imports
    for path, names, target in imports:
        source = scripts[f"static/{target.removeprefix('./')}"]
        for name in re.findall(r"\w+", names):
            pattern = rf"^export (?:async )?(?:function|class|const) {name}\b"
            assert re.search(pattern, source, re.MULTILINE), f"{path} takes {name} from {target}"
            uses = re.findall(rf"\b{name}\b", scripts[path])
            assert len(uses) > 1, f"{path} does not use {name}"


def test_every_script_and_style_is_used() -> None:
    used = {link.rsplit("/", 1)[-1] for page in PAGES for link in Tags(page).values("src", "href")}
    for text in own_files(".js").values():
        used |= set(re.findall(r'from "\./([\w.]+)";', text))
    there = {path.rsplit("/", 1)[-1] for path in [*own_files(".js"), *own_files(".css")]}
    assert there <= used


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_inline_script_style_or_handler(page: str) -> None:
    tags = Tags(page)
    assert tags.inline == []
    found = [
        (tag, name)
        for tag, attrs in tags.tags
        for name in attrs
        if name == "style" or name.startswith("on")
    ]
    assert found == []


def test_no_own_file_names_another_host() -> None:
    files = {**own_files(".html"), **own_files(".js"), **own_files(".css"), **own_files(".svg")}
    hosts = {
        (path, host)
        for path, text in files.items()
        for host in re.findall(r"(?:https?:)?//([\w.-]+\.\w+|localhost)[:/]", text)
    }
    # The default admin address, in words, for a server that gives none; and a name of the format.
    assert hosts == {
        ("static/dashboard.js", "127.0.0.1"),
        ("static/favicon.svg", "www.w3.org"),
    }


def test_scripts_make_no_markup_and_no_code_of_text() -> None:
    # Names of products come from outside; a style attribute would break the policy.
    risky = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        r"|setAttribute\(\"(?:style|on\w+)|\bstyle:|javascript:"
    )
    assert {path: risky.findall(text) for path, text in own_files(".js").items()} == {
        path: [] for path in own_files(".js")
    }


def test_every_id_that_a_script_asks_for_is_in_its_page() -> None:
    scripts = own_files(".js")
    for page, entry in (("index.html", "dashboard.js"), ("shop.html", "shop.js")):
        ids = Tags(page).values("id")
        assert len(ids) == len(set(ids)), page
        todo, seen = [entry], set[str]()
        while todo:
            name = todo.pop()
            seen.add(name)
            text = scripts[f"static/{name}"]
            asked = set(re.findall(r'byId\("([\w-]+)"\)', text))
            assert asked <= set(ids), f"{page} {name}: {asked - set(ids)}"
            todo += [each for each in re.findall(r'from "\./([\w.]+)"', text) if each not in seen]


@pytest.mark.parametrize("page", PAGES)
def test_every_field_has_a_label_and_every_page_a_language_and_a_viewport(page: str) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    tags = Tags(page).tags
    wrapped = re.findall(r"<label[^>]*>[^<]+<input ([^>]*)>", text)
    labelled = {attrs.get("for") for tag, attrs in tags if tag == "label"}
    bare = [
        attrs
        for tag, attrs in tags
        if tag == "input"
        and attrs.get("id") not in labelled
        and not any(f'"{attrs.get("id") or attrs.get("name")}"' in each for each in wrapped)
    ]
    assert bare == []
    assert ("html", {"lang": "en"}) in tags
    assert "width=device-width, initial-scale=1" in text
    assert "user-scalable" not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    found = colours(scheme)
    ratios = {pair: contrast(found[pair[0]], found[pair[1]]) for pair in TEXT_PAIRS}
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < AA_TEXT} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_lines_and_borders_stand_out_from_their_ground(scheme: str) -> None:
    found = colours(scheme)
    ratios = {pair: contrast(found[pair[0]], found[pair[1]]) for pair in SHAPE_PAIRS}
    assert {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < AA_SHAPE} == {}


def test_the_contrast_of_known_colours_is_right() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_stand_in_base_css_only() -> None:
    stray = {
        path: found
        for path, text in {**own_files(".css"), **own_files(".js")}.items()
        if path != "static/base.css"
        and (found := re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\s\"])", text))
    }
    assert stray == {}


def test_movement_is_only_for_those_who_want_it() -> None:
    for path, text in own_files(".css").items():
        for match in re.finditer(r"^\s*(?:animation|transition):", text, re.MULTILINE):
            before = text[: match.start()]
            assert "prefers-reduced-motion: no-preference" in before, path


def test_what_others_wrote_names_its_version_and_its_licence() -> None:
    folder = FOLDER / VENDOR / "uplot"
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")
    note = (folder / "VERSION.md").read_text(encoding="utf-8")
    version = re.match(r"uPlot (\d+\.\d+\.\d+) ", note)
    assert version is not None
    assert f"(v{version[1]})" in (folder / "uPlot.iife.min.js").read_text(encoding="utf-8")[:80]


def test_files_stay_small_enough_to_read() -> None:
    files = {**own_files(".html"), **own_files(".js"), **own_files(".css")}
    lengths = {path: text.count("\n") for path, text in files.items()}
    assert {path: lines for path, lines in lengths.items() if lines > LINES_MAX} == {}
