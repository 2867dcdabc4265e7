"""Stage I (CAD) and stage II (AF): what ``omnibind train align`` and ``omnibind train fuse`` run."""
