"""The commands of this distribution, a file each."""
