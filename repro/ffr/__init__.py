"""FFR (arXiv 2604.16243): a teacher says where to look, the student answers again."""
