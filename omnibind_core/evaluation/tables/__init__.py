"""One module per kind of table of an evaluation."""
