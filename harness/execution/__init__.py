"""Running a plan: workers, executors, progress, and the records of what became of every cell."""
