"""Docstring examples that need PyTorch are collected only where it is installed (`make test-torch`)."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["thalweg/knowledge/torch"]
