"""`data list`, `data fetch`, `data verify`: the data sets that tasks read from files."""

import typer

app = typer.Typer(help="List, fetch and verify data sets.", no_args_is_help=True)
