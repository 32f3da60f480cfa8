"""The paper's tables on the sample model: `python3 dev.py evidence WORK`."""
