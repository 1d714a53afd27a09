"""The reality check: threads that spin on a lock under a real Linux kernel, beside what the `fair` host predicts.

`spinners.c` runs on some CPUs of this machine (`program.py`), with threads, locks and windows as `settings.py` has
them, and what it prints is read line by line (`measured.py`). `worlds.py` makes the same worlds for the simulator,
`comparison.py` puts both side by side. docs/reality.md says how to read it.
"""
