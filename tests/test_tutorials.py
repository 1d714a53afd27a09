"""The tutorials run from beginning to end, and the numbers in their texts are those of their code."""

from __future__ import annotations

import pytest
from nbclient.exceptions import CellExecutionError

from website import tutorials

KEPT = """# %% [markdown]
# This page has **8**, **-1.5** and **3**.

# %%
from IPython.display import HTML
print("\\x1b[1m8\\x1b[0m,")
HTML("<b>-1.5</b>, 38")

# %% language="bash"
# echo 3 >&2
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", tutorials.PAGES)
def test_a_tutorial_runs_and_says_what_is_so(page: str) -> None:
    made = tutorials.site(page, tutorials.PAGES[page].read_text("utf-8"))
    assert made[page].count("![") == sum(place.endswith(".png") for place in made) == len(made) - 2


@pytest.mark.slow
def test_what_a_page_says_is_in_its_outputs() -> None:
    notebook = tutorials.execute(tutorials.read(KEPT))
    assert tutorials.unsaid(notebook) == ["3"]
    shown = tutorials.shown("1.md", notebook, {})
    assert "```text\n8,\n```\n\n<b>-1.5</b>, 38\n\n```sh\necho 3 >&2\n```\n*Run" in shown
    with pytest.raises(ValueError, match=r"^1.md: bold, but not in the outputs: 3$"):
        tutorials.site("1.md", KEPT)


@pytest.mark.slow
def test_a_cell_that_fails_fails_the_page() -> None:
    with pytest.raises(CellExecutionError):
        tutorials.site("1.md", '# %% language="bash"\n# false')
