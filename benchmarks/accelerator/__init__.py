"""What is measured on a GPU, part by part: `benchmarks/accelerator.sh` runs it."""
