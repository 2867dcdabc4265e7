"""A report as HTML, JSON and CSV, and its plots."""
