"""The subcommands of ``omnibind``, one module each, with ``add_parser`` and ``run``."""
