"""Help pages: an example, mistakes, then all of a node's inputs and outputs, and nothing else."""

import re

import pytest

from tests.support.comfy import ROOT

PAGES = ROOT / "js" / "docs"
MAX_BYTES = 400 * 1000  # of all pictures
INPUTS = {"en": ("Inputs", "Input"), "zh": ("输入",)}
OUTPUTS = {"en": ("Outputs", "Output"), "zh": ("输出",)}
EXAMPLE, MISTAKES = {"en": "Example", "zh": "示例"}, {"en": "Common mistakes", "zh": "常见错误"}


def section(text: str, headings: tuple[str, ...]) -> str:
    """The text under the page's one heading of these; empty if it has none."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    bodies = [body for heading, body in zip(parts[1::2], parts[2::2], strict=True) if heading in headings]
    assert len(bodies) < 2, f"more than one of {headings}"
    return bodies[0] if bodies else ""


def tables(body: str) -> list[list[tuple[str, str]]]:
    """(name, text) of every name in the first column, by table; a row may explain several names."""
    result = []
    for table in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
        cells = [line.strip().strip("|").split("|", 1) for line in table.splitlines()[2:]]
        result.append(
            [(name, text.strip()) for first, text in cells for name in re.findall("`(.+?)`", first)]
        )
    return result


def page(node_id: str, language: str) -> tuple[list, list]:
    """The tables under a page's Inputs and under its Outputs."""
    text = (PAGES / node_id / f"{language}.md").read_text(encoding="utf-8")
    return tables(section(text, INPUTS[language])), tables(section(text, OUTPUTS[language]))


def names(rows: list[list[tuple[str, str]]]) -> list[str]:
    """Those that the first table explains, in its order."""
    return [name for name, _ in rows[0]] if rows else []


@pytest.mark.parametrize("language", INPUTS)
def test_inputs_and_outputs_stand_where_they_belong(node_classes, language):
    for node_id, node in node_classes.items():
        schema = node.GET_SCHEMA()
        inputs, outputs = page(node_id, language)
        where = f"js/docs/{node_id}/{language}.md"
        assert names(inputs) == [entry.id for entry in schema.inputs], f"{where}, inputs"
        assert names(outputs) == [entry.display_name for entry in schema.outputs], f"{where}, outputs"


@pytest.mark.parametrize("language", INPUTS)
def test_pages_begin_with_an_example_and_end_with_the_tables(language):
    pages = sorted(PAGES.glob(f"*/{language}.md"))
    assert len(pages) > 30
    for path in pages:
        headings = re.findall(r"^## (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
        assert headings[0].startswith(EXAMPLE[language]), path
        reference = [name for name in headings if name in INPUTS[language] + OUTPUTS[language]]
        mistakes = headings.index(MISTAKES[language])
        assert headings[mistakes + 1 :] == reference, path


@pytest.mark.parametrize("language", INPUTS)
def test_no_output_is_explained_with_an_inputs_text(node_classes, language):
    for node_id in node_classes:
        pages = page(node_id, language)
        inputs, outputs = ({text for table in tables for _, text in table} for tables in pages)
        assert not inputs & outputs, f"js/docs/{node_id}/{language}.md"
        assert "" not in inputs | outputs, f"js/docs/{node_id}/{language}.md"


@pytest.mark.parametrize("language", INPUTS)
def test_further_tables_explain_the_choices_of_an_input(node_classes, language):
    for node_id, node in node_classes.items():
        choices = [list(getattr(entry, "options", None) or []) for entry in node.GET_SCHEMA().inputs]
        inputs, outputs = page(node_id, language)
        for table in [*inputs[1:], *outputs[1:]]:
            assert [name for name, _ in table] in choices, f"js/docs/{node_id}/{language}.md"


@pytest.mark.parametrize("language", INPUTS)
def test_pages_begin_with_a_picture(language):
    """By its place below js/docs, where the page looks for it."""
    shown = set()
    for path in PAGES.glob(f"*/{language}.md"):
        text = path.read_text("utf-8")
        (file,) = re.findall(r"!\[.+?\]\((.+?)\)", text)
        assert text.split("\n")[2].endswith(f"({file})"), path
        picture = PAGES / file
        task = ROOT / "docs/images/tasks" / picture.name
        assert not task.exists() or picture.read_bytes() == task.read_bytes()
        shown.add(picture)
    assert shown == set((PAGES / "images").iterdir())
    assert sum(picture.stat().st_size for picture in shown) < MAX_BYTES
