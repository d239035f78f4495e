"""From kernels to a running program: compiling, the kernel cache on disk, the driver."""
