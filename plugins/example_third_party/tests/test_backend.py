"""The conformance kit on the backend and its kernel."""

from helix_testing import BaseBackendTests, BaseKernelTests


class TestInplace(BaseBackendTests):
    backend = "inplace"


class TestSelectiveScan(BaseKernelTests):
    kernel = "example/selective_scan"
    op = "selective_scan"
    backend = "inplace"
