"""What is where, beside what is perceived: the part of the fusion node that tells of things."""
