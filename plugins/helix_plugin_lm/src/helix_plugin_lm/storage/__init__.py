"""Folders of files that survive a kill, a full disk and a truncated file."""
