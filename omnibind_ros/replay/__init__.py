"""Bags through the fusion node's engine, without ROS: what would have been perceived, and how good that is.

``setup.py`` which sensors, by which parameters; ``changes.py`` what if; ``engine.py`` the replay itself; ``truth.py``
what was there; ``scoring.py`` what the predictions are worth; ``evaluation.py`` all of it for one bag, ``many.py`` for
several; ``pages.py`` the report. ``live.py`` compares a running node; ``play.py`` and ``record.py`` need ROS.
"""
