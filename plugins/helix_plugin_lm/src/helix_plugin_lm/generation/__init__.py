"""Generation: sampling, streaming, batches and beam search with a model's recurrent face."""

from helix_plugin_lm.generation.batch import Continuation, generate_batch
from helix_plugin_lm.generation.beam import Beam, beam_search
from helix_plugin_lm.generation.generate import Generation, generate
from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.saved_state import SavedState, read_state
from helix_plugin_lm.generation.stopping import Stopping

__all__ = [
    "Beam",
    "Continuation",
    "Generation",
    "Sampling",
    "SavedState",
    "Stopping",
    "beam_search",
    "generate",
    "generate_batch",
    "read_state",
]
