"""Bags through the fusion node's engine, without ROS: what would have been perceived, and how good that is.

``setup.py`` which sensors, by which parameters; ``changes.py`` what if; ``engine.py`` the replay itself; ``truth.py``
what was there; ``scoring.py`` what the predictions are worth; ``evaluation.py`` all of it for one bag, ``batch.py`` for
several; ``report.py`` and ``figures.py`` the report. ``live.py`` compares a running node.
"""
