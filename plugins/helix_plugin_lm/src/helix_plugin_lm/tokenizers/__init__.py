"""Tokenizers: texts as tokens and back. Bytes, unless a run has a `tokenizer.json`."""

from helix_plugin_lm.tokenizers.base import Tokenizer, TokenStream, check_vocabulary
from helix_plugin_lm.tokenizers.bytes import BYTES, SEPARATOR, ByteTokenizer
from helix_plugin_lm.tokenizers.file import TOKENIZER_FILE, FileTokenizer

__all__ = [
    "BYTES",
    "SEPARATOR",
    "TOKENIZER_FILE",
    "ByteTokenizer",
    "FileTokenizer",
    "TokenStream",
    "Tokenizer",
    "check_vocabulary",
]
