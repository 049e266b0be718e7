"""Tasks that tell sequence models apart: a table of rows, a runner, a store of results and a report."""
