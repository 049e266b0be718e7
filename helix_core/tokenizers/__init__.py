"""Tokenizers: texts as tokens and back. Bytes, unless a run has a `tokenizer.json`."""

from helix_core.tokenizers.base import Tokenizer, TokenStream, check_vocabulary
from helix_core.tokenizers.bytes import BYTES, ByteTokenizer
from helix_core.tokenizers.file import TOKENIZER_FILE, FileTokenizer

__all__ = ["BYTES", "TOKENIZER_FILE", "ByteTokenizer", "FileTokenizer", "TokenStream", "Tokenizer", "check_vocabulary"]
