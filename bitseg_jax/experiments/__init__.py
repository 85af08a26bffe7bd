"""The paper's tables and figures as sweeps of runs."""
