"""Bags of rendered rooms and streets: what they are furnished with, and how they are written."""
