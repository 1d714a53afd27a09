"""The Gymnasium environments: one machine, thousands of machines, and their registered ids."""
