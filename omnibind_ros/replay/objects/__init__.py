"""Things in a bag: what was where, what the node would have said of each, and what that is worth."""
