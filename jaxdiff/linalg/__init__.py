"""Linear algebra of images: conjugate gradients, a matrix a frequency, Gaussian fields."""
