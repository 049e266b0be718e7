"""OpenCL for Helix: inference on graphics cards and processors with an OpenCL 1.2 driver."""
