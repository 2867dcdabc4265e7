"""How bags are stored: a module for each format, which reads what is whole of a damaged file."""
