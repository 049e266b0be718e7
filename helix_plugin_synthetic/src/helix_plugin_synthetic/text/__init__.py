"""Text with a known structure."""
