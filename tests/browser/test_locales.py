"""Names and tooltips in every language cover the nodes as they are; each node's help page is served."""

import json
import re
import urllib.request

import pytest

from tests.browser.page import PACK_URL
from tests.support.comfy import ROOT

LANGUAGES = ("en", "zh")
# vue-i18n reads these as its own syntax: a tooltip with one of them is shown cut or not at all.
MESSAGE_SYNTAX = re.compile(r"[{}@|]|\$t")


@pytest.fixture(scope="module")
def schemas(server) -> dict:
    """The running server's description of the pack's nodes, by node id."""
    info = server.get("/object_info")
    ours = {name: node for name, node in info.items() if node["python_module"].endswith("ComfyUI-VDOT")}
    assert len(ours) >= 11, f"the server knows only {sorted(ours)} of the pack; see {server.log_path}"
    return ours


def inputs_of(schema: dict) -> dict[str, dict]:
    """Options of every input of a node, by name."""
    sections = schema["input"].get("required", {}) | schema["input"].get("optional", {})
    return {name: (spec[1] if len(spec) > 1 else {}) for name, spec in sections.items()}


def expected_entry(schema: dict) -> dict:
    """The nodeDefs.json entry that says what the schema says."""
    tooltips = schema.get("output_tooltips") or []
    return {
        "display_name": schema["display_name"],
        "description": schema["description"],
        "inputs": {
            name: {"name": options.get("display_name") or name, "tooltip": options.get("tooltip")}
            for name, options in inputs_of(schema).items()
        },
        "outputs": {
            str(index): {"name": name, "tooltip": tooltips[index] if index < len(tooltips) else None}
            for index, name in enumerate(schema["output_name"])
        },
    }


def locale(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / f"{name}.json").read_text("utf-8"))


def leaves(tree: dict, path: tuple = ()) -> dict[tuple, str]:
    """Every text of a nested dictionary, by its path."""
    flat = {}
    for key, value in tree.items():
        flat |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return flat


def test_english_is_the_schema_itself(schemas):
    expected = {name: expected_entry(schema) for name, schema in schemas.items()}
    assert locale("en", "nodeDefs") == expected, "bring it up to date: python locales/sync.py"


def test_every_text_is_translated(schemas):
    expected = leaves({name: expected_entry(schema) for name, schema in schemas.items()})
    chinese = leaves(locale("zh", "nodeDefs"))
    assert set(chinese) == set(expected)
    for path, text in chinese.items():
        assert re.search(r"[\u4e00-\u9fff]", text) or path[-1] == "name" or path[-1] == "display_name", path
        assert text.strip(), path


@pytest.mark.parametrize("name", ["nodeDefs", "main"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_hold_no_message_syntax(language, name):
    texts = leaves(locale(language, name))
    if name == "main":
        texts = {path: re.sub(r"\{\w+\}", "", text) for path, text in texts.items() if path[0] == "vdot"}
    wrong = {path: text for path, text in texts.items() if text is None or MESSAGE_SYNTAX.search(text)}
    assert not wrong


def test_main_has_the_same_keys_and_places_in_every_language():
    english, chinese = leaves(locale("en", "main")), leaves(locale("zh", "main"))
    assert set(english) == set(chinese)
    for path, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[path])), path


def test_labels_of_choices_are_of_choices_that_are_there(schemas):
    values = set()
    for options in (options for schema in schemas.values() for options in inputs_of(schema).values()):
        values |= {value for value in options.get("options") or [] if isinstance(value, str)}
    english, chinese = (locale(language, "main")["vdot"]["choices"] for language in LANGUAGES)
    assert set(english) <= values and all(name == label for name, label in english.items())
    for name, label in chinese.items():
        assert name in label, "help and notes name the value"


def test_every_category_is_translated(schemas):
    parts = {part for schema in schemas.values() for part in schema["category"].split("/")}
    for language in LANGUAGES:
        assert parts <= set(locale(language, "main")["nodeCategories"]), language


def test_the_server_serves_the_languages(server, schemas):
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert set(schemas) <= set(served[language]["nodeDefs"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_nodes_help_page_is_served(server, schemas, language):
    for node_id in schemas:
        url = f"http://127.0.0.1:{server.port}{PACK_URL}docs/{node_id}/{language}.md"
        with urllib.request.urlopen(url, timeout=120) as answer:
            # The front end takes HTML for its own index page and shows no help.
            assert "html" not in answer.headers["Content-Type"]
            served = answer.read()
        # What the pages say is tests/nodes/test_help.py's.
        assert served == (ROOT / "js" / "docs" / node_id / f"{language}.md").read_bytes()


def test_nothing_is_translated_or_explained_that_is_gone(schemas):
    pages = {path.parent.name for path in (ROOT / "js" / "docs").glob("*/*.md")}
    assert pages == set(schemas)
