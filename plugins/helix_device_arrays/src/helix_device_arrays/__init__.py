"""Arrays on a device, evaluated when they are needed: what the OpenCL and the WebGPU backend share."""
