"""The simulator: pCPUs, vCPUs, guests and their locks, Xen's credit scheduler; nothing of Gymnasium or learning.

`docs/model.md` is its complete specification; section numbers in comments refer to that page.
"""
