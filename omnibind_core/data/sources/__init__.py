"""One module per data set; each turns its layout on disk into :class:`omnibind_core.data.samples.Sample`."""
