"""What Helix's torch backends share: namespace, autograd, kernels through torch.library, nn.Module views."""
