"""Language models over Helix's layers: models, tokenizers, generation and run folders."""
