"""The paper's figures and claims as experiments that anyone can rerun, and the questions that the paper leaves open.

From a checkout: `python -m experiments list`. One module per figure or question, in `paper/`, `answer/` and
`learning/`; `lab/` is what they share, `pages/` writes the documents, `results/` holds what was measured, `RESULTS.md`
what it amounts to. How to add one: `docs/howto/add-an-experiment.md`.
"""
