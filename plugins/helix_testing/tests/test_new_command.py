"""The command kit on `helix new`."""

from helix_testing import BaseCommandTests


class TestNew(BaseCommandTests):
    command = "new"
    arguments = ("generator", "mine")
    refused = (
        ["generator", "Not a name"],
        ["kernel", "mine", "--op=no_such_op"],
        ["generator", "mine", "--out=full"],
        ["codec", "mine"],
    )

    def prepare(self, folder):
        (folder / "full").mkdir()
        (folder / "full" / "precious").write_text("mine")
