"""The paper's figures and claims, the calibration, and the rival explanations: what holds of each."""
