"""The demo: a recording played over DDS into the fusion node, with sensors that are killed and come back.

``python -m omnibind_ros.demo``; docs/demo.md describes what it shows and writes.
"""
