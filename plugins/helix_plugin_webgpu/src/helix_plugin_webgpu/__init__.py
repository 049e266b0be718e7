"""WebGPU for Helix: inference on graphics cards through Vulkan, Metal and Direct3D 12."""
