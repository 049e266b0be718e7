"""`helix data`: one file per subcommand."""
