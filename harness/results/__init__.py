"""Records of cells, and the statistics over them."""
