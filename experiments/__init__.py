"""One file per figure or table of the project; they run from a checkout."""
