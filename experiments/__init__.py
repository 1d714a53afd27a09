"""The paper's figures and claims as experiments that anyone can rerun, and the question that the paper leaves open.

From a checkout: `python -m experiments list`. One module per figure or question; `lab.py` is what they share,
`results/` holds what they measured, `RESULTS.md` what it amounts to.
"""
