"""Generation: sampling, streaming, batches and beam search with a model's recurrent face."""

from helix_core.generation.batch import Continuation, generate_batch
from helix_core.generation.beam import Beam, beam_search
from helix_core.generation.generate import Generation, generate
from helix_core.generation.sampling import Sampling
from helix_core.generation.saved_state import SavedState, read_state
from helix_core.generation.stopping import Stopping

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
