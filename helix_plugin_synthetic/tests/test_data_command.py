"""The command kit on `helix data`, a group."""

from helix_testing import BaseCommandTests


class TestGenerate(BaseCommandTests):
    command = "data"
    arguments = ("generate", "dyck", "--out=data", "--n=4", "--format=safetensors")
    refused = (
        ["generate", "no-such-generator", "--out=data", "--n=4"],
        ["generate", "dyck", "--out=data"],
        ["generate", "dyck", "--out=data", "--n=4", "--set=seq_len=7"],
        ["generate", "--preset=no-such-preset", "--out=data"],
        ["verify", "no-such-generator"],
        ["presets", "--check=no-such-preset"],
    )


class TestPresets(BaseCommandTests):
    command = "data"
    arguments = ("presets",)


class TestCheckedPreset(BaseCommandTests):
    command = "data"
    arguments = ("presets", "--check=facts")
