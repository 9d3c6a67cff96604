"""Images, kernels, masks and data sets that people have."""
