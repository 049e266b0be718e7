"""Hugging Face checkpoints: `helix import` and `helix export`.

A run, here one that was never trained, goes out and comes back:

>>> import tempfile
>>> from pathlib import Path
>>> from helix_plugin_huggingface.reading import import_checkpoint
>>> from helix_plugin_huggingface.writing import export_run
>>> from helix_plugin_lm.models import LanguageModel
>>> from helix_plugin_lm.runs import RunFolder
>>> from helix_plugin_lm.runs.checkpoint import save_checkpoint
>>> from helix_plugin_training.recipes import Recipe, dump_recipe
>>> mamba = {"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba", "d_state": 2}}
>>> recipe = Recipe(name="tiny", model=mamba, training={"steps": 1, "batch_size": 1})
>>> with tempfile.TemporaryDirectory() as folder:
...     run, out = RunFolder(Path(folder, "run")), Path(folder, "hf")
...     run.path.mkdir()
...     run.write_recipe(dump_recipe(recipe))
...     _ = save_checkpoint(run.checkpoints, 0, LanguageModel(recipe.model).init(seed=0), {}, {})
...     exported = export_run(run.path, out)
...     again = import_checkpoint(out, Path(folder, "again"))
>>> exported["architecture"], exported["tensors"] == again["tensors"]
('MambaForCausalLM', True)
"""
