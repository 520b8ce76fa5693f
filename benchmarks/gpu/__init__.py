"""The parts of `python dev.py gpu`: each a function of the device that returns figures."""
