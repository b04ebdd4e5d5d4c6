"""What has to run: programs lowered to stages, their keys, and what a store has of them."""
