"""The tutorials run from beginning to end, and the numbers in their texts are those of their code."""

from __future__ import annotations

import pytest
from nbclient.exceptions import CellExecutionError

from website import tutorials

KEPT = """# %% [markdown]
# This page has **8**, **-1.5** and **3**.

# %%
from IPython.display import HTML, display
display(HTML("<b>-1.5</b>, 38"))
print("\\x1b[1m8\\x1b[0m,")

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
    page = tutorials.shown("1.md", notebook, {})
    assert "<b>-1.5</b>, 38\n\n```text\n8,\n```\n\n```sh\necho 3 >&2\n```\n*Run" in page
    with pytest.raises(ValueError, match=r"^1.md: bold, but not in the outputs: 3$"):
        tutorials.site("1.md", KEPT)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["# %%\n1 / 0", '# %% language="bash"\n# false'])
def test_a_cell_that_fails_fails_the_page(cell: str) -> None:
    with pytest.raises(CellExecutionError):
        tutorials.site("1.md", cell)
