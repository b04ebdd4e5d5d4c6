"""One product on one engine: shapes, placement, resources, and what is told of them."""
