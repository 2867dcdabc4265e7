"""Which labels, and which samples, of different data sets mean the same thing."""
